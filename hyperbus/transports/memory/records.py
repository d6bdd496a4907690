"""Records in memory. Safe from any thread; names are relative to the prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hyperbus.clock import Seconds
from hyperbus.errors import WrongTypeError
from hyperbus.transports.keys import record_key
from hyperbus.transports.memory.session import Session
from hyperbus.transports.memory.store import SortedSet, Store


class MemoryRecords:
    """Implements `hyperbus.transport.Records`."""

    def __init__(self, store: Store, session: Session, prefix: str) -> None:
        self._store = store
        self._session = session
        self._prefix = prefix

    async def put(self, name: str, value: bytes, *, ttl: Seconds | None = None) -> None:
        """Store a value, for `ttl` seconds if given."""
        await self._session.enter()
        with self._store.lock:
            self._store.set(self._key(name), value, ttl)

    async def renew(self, names: Sequence[str], *, ttl: Seconds) -> list[bool]:
        """Let records live for another `ttl` seconds; False for one that is gone."""
        await self._session.enter()
        with self._store.lock:
            return [self._store.renew(self._key(name), ttl) for name in names]

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the values; None for a record that is gone, or that is a set."""
        await self._session.enter()
        with self._store.lock:
            values = [self._store.find(self._key(name)) for name in names]
        return [value if isinstance(value, bytes) else None for value in values]

    async def lifetimes(self, names: Sequence[str]) -> tuple[float, list[float | None]]:
        """Return the clock's time, and when each record ends; inf for one that stays, None for one that is gone."""
        await self._session.enter()
        with self._store.lock:
            now = self._store.clock.now()
            left = [self._store.left(self._key(name)) for name in names]
        return now, [None if seconds is None else round(now + seconds, 3) for seconds in left]

    async def delete(self, names: Sequence[str]) -> int:
        """Delete records; return how many there were."""
        await self._session.enter()
        with self._store.lock:
            return sum(self._store.delete(self._key(name)) for name in names)

    async def compare_and_set(
        self, name: str, expected: bytes | None, value: bytes | None, *, ttl: Seconds | None = None
    ) -> bool:
        """Store `value` if the record holds `expected`."""
        await self._session.enter()
        key = self._key(name)
        with self._store.lock:
            held = self._store.find(key)
            if held is not None and not isinstance(held, bytes):
                raise WrongTypeError(f"{key} holds something that is not a value: delete that key")
            if held != expected:
                return False
            if value is None:
                self._store.delete(key)
            else:
                self._store.set(key, value, ttl)
            return True

    async def add_members(self, name: str, members: Mapping[str, float]) -> int:
        """Add members with their times; those that are there keep theirs."""
        await self._session.enter()
        if not members:
            return 0
        key = self._key(name)
        with self._store.lock:
            held = self._store.sorted_set(key)
            if held is None:
                held = {}
                self._store.set(key, held)
            before = len(held)
            held.update({member: time for member, time in members.items() if member not in held})
            return len(held) - before

    async def members(
        self,
        name: str,
        *,
        minimum: float = float("-inf"),
        maximum: float = float("inf"),
        count: int = 1000,
        offset: int = 0,
        newest: bool = False,
    ) -> list[tuple[str, float]]:
        """Return members whose time lies between the two, earliest first."""
        await self._session.enter()
        with self._store.lock:
            held: SortedSet = self._store.sorted_set(self._key(name)) or {}
            found = [(member, time) for member, time in held.items() if minimum <= time <= maximum]
        found.sort(key=lambda item: (item[1], item[0].encode(errors="surrogateescape")), reverse=newest)
        return found[offset : offset + count]

    async def touch_members(self, name: str, members: Sequence[str], quiet: Seconds) -> int:
        """Add members with the server's time now, or give it to those that are there."""
        await self._session.enter()
        if not members:
            return 0
        key = self._key(name)
        now = self._store.clock.now()
        with self._store.lock:
            held = self._store.sorted_set(key)
            if held is None:
                held = {}
                self._store.set(key, held)
            new = sum(member not in held or now - held[member] > quiet for member in members)
            held.update(dict.fromkeys(members, now))
            return new

    async def remove_members(self, name: str, members: Sequence[str], *, maximum: float = float("inf")) -> int:
        """Remove those of these members whose time is not above `maximum`. A set without members is gone."""
        await self._session.enter()
        key = self._key(name)
        with self._store.lock:
            held = self._store.sorted_set(key)
            if held is None:
                return 0
            wanted = [member for member in members if held.get(member, float("inf")) <= maximum]
            removed = sum(held.pop(member, None) is not None for member in wanted)
            if not held:
                self._store.delete(key)
            return removed

    async def server_time(self) -> float:
        """Return the clock's time, seconds since the epoch."""
        await self._session.enter()
        return self._store.clock.now()

    def _key(self, name: str) -> str:
        return record_key(self._prefix, name)
