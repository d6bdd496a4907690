"""A transport in the memory of one process, with the semantics of Redis Streams; for tests and for running alone."""

from hyperbus.transports.memory.transport import MemoryTransport

__all__ = ["MemoryTransport"]
