"""Groups in memory: who is in them, what is pending with whom, and how it changes hands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from hyperbus.transport import FIRST_ID, Entry, PendingEntry, PendingSummary
from hyperbus.transports.keys import checkpoint_key, deaths_key, parked_key, retries_key, suspects_key
from hyperbus.transports.memory.part import Part
from hyperbus.transports.memory.stream import EntryId, Group, Stream, format_id, parse_id

#: What is kept for a group under keys of its own, and goes with it.
KEPT = (checkpoint_key, retries_key, suspects_key, deaths_key, parked_key)


class MemoryGroups(Part):
    """Implements `hyperbus.transport.Groups`."""

    async def create_groups(self, groups: Sequence[tuple[str, str, bytes]]) -> list[bool]:
        """Create (stream, group, after this id) where missing, with the stream; tell which were created."""
        await self._session.enter()
        with self._store.lock:
            return [self._create_group(name, group, after) for name, group, after in groups]

    async def destroy_group(self, stream: str, group: str) -> bool:
        """Remove a group for good, with its pending list and all that is kept for it but its dead letters."""
        await self._session.enter()
        with self._store.lock:
            found = self._store.find_group(stream, group)
            for key_of in KEPT:
                self._store.delete(key_of(stream, group))
            if found is None:
                return False
            del found[0].groups[group]
            self._store.notify(stream)
            return True

    async def consumers(self, groups: Sequence[tuple[str, str]]) -> list[list[str]]:
        """Return the names of all consumers of each (stream, group); [] where either is missing."""
        await self._session.enter()
        with self._store.lock:
            found = [self._store.find_group(name, group) for name, group in groups]
            return [[] if pair is None else sorted(pair[1].consumers) for pair in found]

    async def remove_consumer(self, group: str, consumer: str, streams: Sequence[str]) -> int:
        """Remove `consumer` from its group where it has nothing pending; return from how many."""
        await self._session.enter()
        removed = 0
        with self._store.lock:
            for name in streams:
                found = self._store.find_group(name, group)
                if found and consumer in found[1].consumers and next(found[1].held_by(consumer), None) is None:
                    found[1].consumers.remove(consumer)
                    removed += 1
        return removed

    async def ack(self, acks: Sequence[tuple[str, str, Sequence[bytes]]]) -> list[int]:
        """Ack (stream, group, ids); return how many of the ids were still pending."""
        await self._session.enter()
        with self._store.lock:
            return [self._ack(name, group, ids) for name, group, ids in acks]

    async def pending_summaries(self, groups: Sequence[tuple[str, str]]) -> list[PendingSummary]:
        """Return the summary of each (stream, group); an empty one where either is missing."""
        await self._session.enter()
        with self._store.lock:
            return [self._summary(name, group) for name, group in groups]

    async def pending(
        self,
        stream: str,
        group: str,
        *,
        consumer: str | None = None,
        after: bytes = FIRST_ID,
        count: int = 100,
    ) -> list[PendingEntry]:
        """Return pending entries with an id above `after`, oldest first."""
        await self._session.enter()
        with self._store.lock:
            found = self._store.find_group(stream, group)
            if found is None:
                return []
            members = found[1]
            start = parse_id(after)
            held = members.pending.after(start) if consumer is None else members.held_by(consumer, start)
            now = self._store.clock.monotonic()
            return [
                PendingEntry(format_id(entry_id), entry.consumer, now - entry.delivered_at, entry.delivery_count)
                for entry_id, entry in islice(held, count)
            ]

    async def claim(
        self, stream: str, group: str, consumer: str, ids: Sequence[bytes], *, owner: str, in_order: bool = False
    ) -> list[tuple[Entry, int]]:
        """Take over those of `ids` that `owner` still holds."""
        await self._session.enter()
        claimed: list[tuple[Entry, int]] = []
        if not ids:
            return claimed
        with self._store.lock:
            log, members = self._store.group(stream, group)
            for entry_id in map(parse_id, ids):
                holder = members.pending.get(entry_id)
                if in_order and holder is not None and holder.consumer != owner:
                    break
                pending = log.claimable(members, entry_id, owner)
                if pending is not None:
                    members.move(entry_id, consumer, self._store.clock.monotonic(), pending.delivery_count + 1)
                    fields = log.entries.get(entry_id) or []
                    claimed.append((Entry(format_id(entry_id), list(fields)), pending.delivery_count))
        return claimed

    async def hand_over(
        self, stream: str, group: str, consumer: str, to: str, counts: Sequence[tuple[bytes, int]]
    ) -> list[bool]:
        """Give entries that `consumer` still owns to the consumer `to`, with these delivery counts; tell which."""
        await self._session.enter()
        moved: list[bool] = []
        if not counts:
            return moved
        with self._store.lock:
            log, members = self._store.group(stream, group)
            for text, count in counts:
                entry_id = parse_id(text)
                owned = log.claimable(members, entry_id, consumer) is not None
                if owned:
                    members.move(entry_id, to, self._store.clock.monotonic(), count)
                moved.append(owned)
        return moved

    def _create_group(self, name: str, group: str, after: bytes) -> bool:
        stream = self._store.make_stream(name)
        if group in stream.groups:
            return False
        stream.groups[group] = Group(_start(stream, after))
        return True

    def _ack(self, name: str, group: str, ids: Sequence[bytes]) -> int:
        found = self._store.find_group(name, group)
        if found is None:
            return 0
        return sum(found[1].pending.pop(parse_id(entry_id)) is not None for entry_id in ids)

    def _summary(self, name: str, group: str) -> PendingSummary:
        found = self._store.find_group(name, group)
        if found is None:
            return PendingSummary(0, {})
        pending = found[1].pending
        return PendingSummary(len(pending), dict(Counter(entry.consumer for _, entry in pending.after((0, 0)))))


def _start(stream: Stream, after: bytes) -> EntryId:
    """Read the position of a new group; `$` means the stream's end, as on a server."""
    return stream.last_id if after == b"$" else parse_id(after)
