"""hyperbus: a Redis Streams event bus. These are the public names."""

__version__ = "0.1.0"
