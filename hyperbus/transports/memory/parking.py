"""Parked entries in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hyperbus.clock import Seconds
from hyperbus.transport import DeadLetter, Parked
from hyperbus.transports.dead_letters import to_fields
from hyperbus.transports.keys import dead_letter_key, parked_key
from hyperbus.transports.memory.part import Part
from hyperbus.transports.memory.store import Held, ParkedEntries
from hyperbus.transports.memory.stream import parse_id


class MemoryParking(Part):
    """Implements `hyperbus.transport.Parking`."""

    async def park(self, stream: str, group: str, consumer: str, parked: Sequence[Parked]) -> list[bool]:
        """Store entries that `consumer` still owns, and ack them; tell which."""
        await self._session.enter()
        moved: list[bool] = []
        if not parked:
            return moved
        with self._store.lock:
            entries = self._entries(stream, group)
            _, members = self._store.group(stream, group)
            for entry in parked:
                entry_id = parse_id(entry.entry_id)
                owned = members.owned(entry_id, consumer) is not None
                if owned:
                    entries[entry.entry_id] = Held(entry._replace(fields=list(entry.fields)), "", entry.due)
                    members.pending.pop(entry_id)
                moved.append(owned)
            self._keep_entries(stream, group, entries)
        return moved

    async def take_parked(
        self, stream: str, group: str, holder: str, *, now: float, lease: Seconds, count: int
    ) -> list[Parked]:
        """Take up to `count` entries that are due, earliest first, and hide them from others for `lease` seconds."""
        await self._session.enter()
        with self._store.lock:
            free = [held for held in self._entries(stream, group).values() if held.free_at <= now]
            taken = sorted(free, key=lambda held: (held.free_at, held.parked.entry_id))[:count]
            for held in taken:
                held.holder, held.free_at = holder, now + lease
            return [held.parked for held in taken]

    async def renew_parked(
        self, stream: str, group: str, holder: str, ids: Sequence[bytes], *, now: float, lease: Seconds
    ) -> list[bool]:
        """Hide entries for another `lease` seconds from `now`, where `holder` still has them; tell which."""

        def renew(held: Held, _: int) -> None:
            held.free_at = now + lease

        await self._session.enter()
        with self._store.lock:
            return self._change(stream, group, holder, ids, renew)

    async def finish_parked(self, stream: str, group: str, holder: str, ids: Sequence[bytes]) -> list[bool]:
        """Remove entries that are done with, where `holder` still has them; tell which."""
        await self._session.enter()
        with self._store.lock:
            return self._change(stream, group, holder, ids, None)

    async def reschedule_parked(
        self, stream: str, group: str, holder: str, changes: Sequence[tuple[bytes, int, float]]
    ) -> list[bool]:
        """Give back entries with (id, tries, due), where `holder` still has them; tell which."""

        def give_back(held: Held, index: int) -> None:
            _, tries, due = changes[index]
            held.parked = held.parked._replace(tries=tries, due=due)
            held.holder, held.free_at = "", due

        await self._session.enter()
        with self._store.lock:
            return self._change(stream, group, holder, [entry_id for entry_id, _, _ in changes], give_back)

    async def dead_letter_parked(
        self, stream: str, group: str, holder: str, letters: Sequence[DeadLetter]
    ) -> list[bool]:
        """Move entries to the group's dead letters, where `holder` still has them; tell which."""
        await self._session.enter()
        key = dead_letter_key(stream, group)
        with self._store.lock:
            # What could refuse the append is looked at first, as the removal cannot be taken back.
            self._store.stream(key)
            removed = self._change(stream, group, holder, [letter.entry_id for letter in letters], None)
            for letter, there in zip(letters, removed, strict=True):
                if there:
                    self._store.make_stream(key).append(to_fields(letter, holder), self._store.clock.now())
            self._store.notify(key)
        return removed

    async def parked_count(self, groups: Sequence[tuple[str, str]]) -> list[int]:
        """Return how many entries each (stream, group) has parked, those that are held included."""
        await self._session.enter()
        with self._store.lock:
            return [len(self._entries(stream, group)) for stream, group in groups]

    async def next_parked(self, groups: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return when the next entry of each (stream, group) can be taken; None for none."""
        await self._session.enter()
        with self._store.lock:
            every = [self._entries(stream, group).values() for stream, group in groups]
            return [min((held.free_at for held in entries), default=None) for entries in every]

    def _change(
        self, stream: str, group: str, holder: str, ids: Sequence[bytes], change: Callable[[Held, int], None] | None
    ) -> list[bool]:
        """Change what `holder` still has, or remove it where there is no `change`."""
        entries = self._entries(stream, group)
        done: list[bool] = []
        for index, entry_id in enumerate(ids):
            held = entries.get(entry_id)
            ours = held is not None and held.holder == holder
            if held is not None and ours:
                if change is None:
                    del entries[entry_id]
                else:
                    change(held, index)
            done.append(ours)
        self._keep_entries(stream, group, entries)
        return done

    def _entries(self, stream: str, group: str) -> ParkedEntries:
        return self._store.holding(parked_key(stream, group), ParkedEntries) or ParkedEntries()

    def _keep_entries(self, stream: str, group: str, entries: ParkedEntries) -> None:
        if entries:
            self._store.set(parked_key(stream, group), entries)
        else:
            self._store.delete(parked_key(stream, group))
