"""Streams in memory: all their parts, on the data structures next door."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbus.transport import FIRST_ID, Entry, StreamInfo
from hyperbus.transports.memory.appends import MemoryAppends
from hyperbus.transports.memory.failures import MemoryFailures
from hyperbus.transports.memory.groups import MemoryGroups
from hyperbus.transports.memory.parking import MemoryParking
from hyperbus.transports.memory.retention import MemoryRetention
from hyperbus.transports.memory.stream import format_id, parse_id


class MemoryStreams(MemoryAppends, MemoryGroups, MemoryFailures, MemoryParking, MemoryRetention):
    """Implements `hyperbus.transport.Streams`."""

    async def range(self, stream: str, *, after: bytes = FIRST_ID, count: int = 100) -> list[Entry]:
        """Return entries with an id above `after`, oldest first."""
        await self._session.enter()
        with self._store.lock:
            found = self._store.stream(stream)
            return [] if found is None else found.read(parse_id(after), count)

    async def last_ids(self, streams: Sequence[str]) -> list[bytes]:
        """Return the highest id each stream ever gave out."""
        await self._session.enter()
        with self._store.lock:
            found = [self._store.stream(name) for name in streams]
            return [FIRST_ID if stream is None else format_id(stream.last_id) for stream in found]

    async def info(self, streams: Sequence[str]) -> list[StreamInfo | None]:
        """Return the state of each stream; None for one that does not exist."""
        await self._session.enter()
        with self._store.lock:
            found = [(name, self._store.stream(name)) for name in streams]
            return [None if stream is None else stream.info(name) for name, stream in found]

    async def scan(self, pattern: str) -> list[str]:
        """Return every stream whose key matches a glob of the server's style."""
        await self._session.enter()
        with self._store.lock:
            return self._store.scan(pattern)
