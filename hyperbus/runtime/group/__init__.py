"""A worker's place in its group: name, streams, where it starts, how far it came, what it may read."""
