"""What went wrong, in memory: delivery counts, retries, dead letters and suspects."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbus.clock import Seconds
from hyperbus.transport import FIRST_ID, DeadLetter
from hyperbus.transports.dead_letters import from_fields, to_fields
from hyperbus.transports.keys import dead_letter_key, deaths_key, retries_key, suspects_key
from hyperbus.transports.memory.part import Part
from hyperbus.transports.memory.store import Suspects
from hyperbus.transports.memory.stream import Group, parse_id

#: How long suspects and deaths are remembered.
_SUSPECTS_TTL: Seconds = 7 * 24 * 3600.0
#: Schedules that each call looks at beyond those it writes, to drop what is no longer pending.
_SWEPT = 10


class MemoryFailures(Part):
    """Implements `hyperbus.transport.Failures`."""

    async def set_delivery_counts(
        self, stream: str, group: str, consumer: str, counts: Sequence[tuple[bytes, int]]
    ) -> list[bool]:
        """Write the delivery count of entries that `consumer` still owns; tell which."""
        await self._session.enter()
        if not counts:
            return []
        with self._store.lock:
            return self._write_counts(stream, group, consumer, counts)

    async def schedule_retries(
        self, stream: str, group: str, consumer: str, retries: Sequence[tuple[bytes, int, float]]
    ) -> list[bool]:
        """Write (id, delivery count, due time) of pending entries that `consumer` still owns; tell which."""
        await self._session.enter()
        if not retries:
            return []
        key = retries_key(stream, group)
        with self._store.lock:
            times = self._store.sorted_set(key) or {}
            written = self._write_counts(stream, group, consumer, [(entry_id, count) for entry_id, count, _ in retries])
            times.update(
                {entry_id.decode(): due for (entry_id, _, due), done in zip(retries, written, strict=True) if done}
            )
            self._sweep(times, self._store.group(stream, group)[1], len(retries) + _SWEPT)
            self._keep_times(key, times)
            return written

    async def retry_times(self, stream: str, group: str, ids: Sequence[bytes]) -> list[float | None]:
        """Return when each entry is due, None for one that has no schedule."""
        await self._session.enter()
        with self._store.lock:
            times = self._store.sorted_set(retries_key(stream, group)) or {}
            return [times.get(entry_id.decode()) for entry_id in ids]

    async def forget_retries(self, stream: str, group: str, ids: Sequence[bytes]) -> int:
        """Drop the schedules of entries; return how many there were."""
        await self._session.enter()
        key = retries_key(stream, group)
        with self._store.lock:
            times = self._store.sorted_set(key) or {}
            dropped = sum(times.pop(entry_id.decode(), None) is not None for entry_id in ids)
            self._keep_times(key, times)
            return dropped

    async def retry_counts(self, groups: Sequence[tuple[str, str]]) -> list[int]:
        """Return how many schedules each (stream, group) has."""
        await self._session.enter()
        with self._store.lock:
            return [len(self._store.sorted_set(retries_key(*pair)) or ()) for pair in groups]

    async def dead_letter_counts(self, groups: Sequence[tuple[str, str]]) -> list[int]:
        """Return how many dead letters each (stream, group) has."""
        await self._session.enter()
        with self._store.lock:
            found = [self._store.stream(dead_letter_key(*pair)) for pair in groups]
            return [0 if letters is None else len(letters.entries) for letters in found]

    async def dead_letter(self, stream: str, group: str, consumer: str, letters: Sequence[DeadLetter]) -> list[bool]:
        """Append to the group's dead letters and ack, where `consumer` still owns the entry; tell which."""
        await self._session.enter()
        key = dead_letter_key(stream, group)
        moved: list[bool] = []
        if not letters:
            return moved
        with self._store.lock:
            # What could refuse the append is looked at first, as an ack cannot be taken back.
            self._store.stream(key)
            _, members = self._store.group(stream, group)
            for letter in letters:
                entry_id = parse_id(letter.entry_id)
                owned = members.owned(entry_id, consumer) is not None
                if owned:
                    self._store.make_stream(key).append(to_fields(letter, consumer), self._store.clock.now())
                    members.pending.pop(entry_id)
                moved.append(owned)
            self._store.notify(key)
        return moved

    async def dead_letters(
        self, stream: str, group: str, *, after: bytes = FIRST_ID, count: int = 100
    ) -> list[tuple[bytes, DeadLetter]]:
        """Return the group's dead letters with their own ids, oldest first."""
        await self._session.enter()
        with self._store.lock:
            found = self._store.stream(dead_letter_key(stream, group))
            entries = [] if found is None else found.read(parse_id(after), count)
        return [(entry.id, from_fields(entry.fields)) for entry in entries]

    async def suspect(self, stream: str, group: str, ids: Sequence[bytes]) -> list[int]:
        """Count that each entry is begun alone; return how often it was."""
        return await self._count(suspects_key(stream, group), ids)

    async def clear_suspects(self, stream: str, group: str, ids: Sequence[bytes]) -> int:
        """Forget that entries were begun alone; return how many were known."""
        return await self._forget(suspects_key(stream, group), ids)

    async def suspicions(self, stream: str, group: str, ids: Sequence[bytes]) -> list[int]:
        """Return how often each entry was begun alone."""
        return await self._counts(suspects_key(stream, group), ids)

    async def count_deaths(self, stream: str, group: str, ids: Sequence[bytes]) -> list[int]:
        """Count that each entry was claimed from a worker that had died; return how often it was."""
        return await self._count(deaths_key(stream, group), ids)

    async def deaths(self, stream: str, group: str, ids: Sequence[bytes]) -> list[int]:
        """Return how often each entry was claimed from a worker that had died."""
        return await self._counts(deaths_key(stream, group), ids)

    async def forget_deaths(self, stream: str, group: str, ids: Sequence[bytes]) -> int:
        """Forget that entries were claimed from workers that had died; return how many were known."""
        return await self._forget(deaths_key(stream, group), ids)

    async def _count(self, key: str, ids: Sequence[bytes]) -> list[int]:
        await self._session.enter()
        counts: list[int] = []
        if not ids:
            return counts
        with self._store.lock:
            suspects = self._store.holding(key, Suspects) or Suspects()
            for entry_id in ids:
                suspects[entry_id] = suspects.get(entry_id, 0) + 1
                counts.append(suspects[entry_id])
            self._store.set(key, suspects, _SUSPECTS_TTL)
        return counts

    async def _counts(self, key: str, ids: Sequence[bytes]) -> list[int]:
        await self._session.enter()
        with self._store.lock:
            suspects = self._store.holding(key, Suspects) or Suspects()
            return [suspects.get(entry_id, 0) for entry_id in ids]

    async def _forget(self, key: str, ids: Sequence[bytes]) -> int:
        await self._session.enter()
        with self._store.lock:
            suspects = self._store.holding(key, Suspects) or Suspects()
            return sum(suspects.pop(entry_id, None) is not None for entry_id in ids)

    def _write_counts(self, stream: str, group: str, consumer: str, counts: Sequence[tuple[bytes, int]]) -> list[bool]:
        log, members = self._store.group(stream, group)
        written: list[bool] = []
        for text, count in counts:
            pending = log.claimable(members, parse_id(text), consumer)
            if pending is not None:
                pending.delivery_count, pending.delivered_at = count, self._store.clock.monotonic()
            written.append(pending is not None)
        return written

    def _sweep(self, times: dict[str, float], members: Group, count: int) -> None:
        earliest = sorted(times, key=lambda member: (times[member], member))[:count]
        for member in earliest:
            if members.pending.get(parse_id(member.encode())) is None:
                del times[member]

    def _keep_times(self, key: str, times: dict[str, float]) -> None:
        if times:
            self._store.set(key, times)
        else:
            self._store.delete(key)
