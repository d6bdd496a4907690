"""How much memory keeps: checkpoints of groups, the length and weight of streams, and cutting them."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbus.transport import Position, id_key, is_id
from hyperbus.transports.keys import checkpoint_key, parked_key
from hyperbus.transports.memory.groups import KEPT
from hyperbus.transports.memory.part import Part
from hyperbus.transports.memory.stream import Stream, format_id, parse_id

#: A lower limit counts as this one, as on a server, which cuts whole blocks.
_LEAST_CUT = 1_000


class MemoryRetention(Part):
    """Implements `hyperbus.transport.Retention`."""

    async def floors(self, stream: str) -> dict[str, bytes]:
        """Return the floor of every group on a stream."""
        await self._session.enter()
        with self._store.lock:
            found = self._store.stream(stream)
            groups = {} if found is None else found.groups
            return {name: format_id(group.floor) for name, group in sorted(groups.items())}

    async def save_checkpoints(self, groups: Sequence[tuple[str, str]]) -> list[bytes | None]:
        """Store the floor of each (stream, group) as its checkpoint, and return the checkpoint."""
        await self._session.enter()
        with self._store.lock:
            return [self._save(stream, group) for stream, group in groups]

    async def checkpoints(self, groups: Sequence[tuple[str, str]]) -> list[bytes | None]:
        """Return the checkpoint of each (stream, group); None where none was saved."""
        await self._session.enter()
        with self._store.lock:
            return [self._checkpoint(checkpoint_key(*pair)) for pair in groups]

    async def trim(self, stream: str, *, up_to: bytes, limit: int) -> int:
        """Delete entries with an id up to `up_to`, oldest first; return how many."""
        await self._session.enter()
        with self._store.lock:
            found = self._store.stream(stream)
            return 0 if found is None else found.trim(parse_id(up_to), max(limit, _LEAST_CUT))

    async def remove_ended(self, stream: str, last_id: bytes, groups: Sequence[str]) -> bool:
        """Remove a stream in which nothing is left, with all that is kept for its groups but their dead letters."""
        await self._session.enter()
        with self._store.lock:
            found = self._store.stream(stream)
            if found is None:
                return True
            waits = any(len(group.pending) for group in found.groups.values())
            parked = any(self._store.find(parked_key(stream, group)) for group in groups)
            if len(found.entries) or found.last_id != parse_id(last_id) or waits or parked:
                return False
            for key in (stream, *(key_of(stream, group) for group in groups for key_of in KEPT)):
                self._store.delete(key)
            return True

    async def oldest(self, streams: Sequence[str]) -> list[bytes | None]:
        """Return the id of the oldest entry of each stream; None where there is none."""
        await self._session.enter()
        with self._store.lock:
            found = [self._store.stream(name) for name in streams]
            return [format_id(s.entries.first_id) if s is not None and len(s.entries) else None for s in found]

    async def count_between(self, stream: str, after: bytes, up_to: bytes, limit: int) -> int:
        """Count entries above `after`, up to `up_to`, and no further than `limit`."""
        await self._session.enter()
        with self._store.lock:
            found = self._store.stream(stream)
            between = 0 if found is None else found.entries.count_between(parse_id(after), parse_id(up_to))
            return min(between, limit)

    async def positions(self, group: str, streams: Sequence[str]) -> list[Position | None]:
        """Return how far a group is on each stream; None where the stream or the group is missing."""
        await self._session.enter()
        with self._store.lock:
            found = [self._store.find(name) for name in streams]
            return [s.position(group) if isinstance(s, Stream) else None for s in found]

    async def stream_bytes(self, streams: Sequence[str]) -> list[int]:
        """Return about how many bytes each stream takes; 0 for a missing one."""
        await self._session.enter()
        with self._store.lock:
            found = [self._store.stream(name) for name in streams]
            return [0 if s is None else s.weight for s in found]

    async def eviction_policy(self) -> tuple[str, int] | None:
        """Return that nothing is ever evicted: memory has no limit."""
        await self._session.enter()
        return "noeviction", 0

    def _checkpoint(self, key: str) -> bytes | None:
        found = self._store.find(key)
        return found if isinstance(found, bytes) and is_id(found) else None

    def _save(self, stream: str, group: str) -> bytes | None:
        found = self._store.find_group(stream, group)
        if found is None:
            return None
        log, members = found
        key = checkpoint_key(stream, group)
        floor = format_id(members.floor)
        stored = self._checkpoint(key)
        if stored is not None and id_key(floor) <= id_key(stored) <= log.last_id:
            return stored
        self._store.set(key, floor)
        return floor
