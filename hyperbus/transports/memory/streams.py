"""Streams and their groups in memory: what the contract asks, on the data structures next door."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from hyperbus.errors import BusUnavailable, HyperbusError, PublishRefusedError, WrongTypeError
from hyperbus.transport import FIRST_ID, DeadLetter, Entry, NewEntry, PendingEntry, PendingSummary, StreamInfo
from hyperbus.transports.keys import dead_letter_key
from hyperbus.transports.memory.dead_letters import from_fields, to_fields
from hyperbus.transports.memory.session import Session
from hyperbus.transports.memory.store import Store
from hyperbus.transports.memory.stream import Group, Stream, format_id, parse_id


class MemoryStreams:
    """Implements `hyperbus.transport.Streams`."""

    def __init__(self, store: Store, session: Session) -> None:
        self._store = store
        self._session = session

    async def append(self, entries: Sequence[NewEntry]) -> list[str | HyperbusError]:
        """Append entries in order; return the id of each, or the error it met."""
        try:
            await self._session.enter()
        except BusUnavailable as error:
            return [error for _ in entries]
        with self._store.lock:
            return [self._append(entry) for entry in entries]

    async def create_groups(self, groups: Sequence[tuple[str, str, bytes]]) -> list[bool]:
        """Create (stream, group, after this id) where missing, with the stream; tell which were created."""
        await self._session.enter()
        with self._store.lock:
            return [self._create_group(name, group, after) for name, group, after in groups]

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
        self, stream: str, group: str, consumer: str, ids: Sequence[bytes], *, owner: str
    ) -> list[tuple[Entry, int]]:
        """Take over those of `ids` that `owner` still holds."""
        await self._session.enter()
        claimed: list[tuple[Entry, int]] = []
        if not ids:
            return claimed
        with self._store.lock:
            log, members = self._store.group(stream, group)
            for entry_id in map(parse_id, ids):
                pending = members.owned(entry_id, owner)
                if pending is None:
                    continue
                fields = log.entries.get(entry_id)
                if fields is None:
                    members.pending.pop(entry_id)
                    continue
                members.consumers.add(consumer)
                pending.consumer = consumer
                pending.delivered_at = self._store.clock.monotonic()
                pending.delivery_count += 1
                claimed.append((Entry(format_id(entry_id), list(fields)), pending.delivery_count))
        return claimed

    async def set_delivery_counts(
        self, stream: str, group: str, consumer: str, counts: Sequence[tuple[bytes, int]]
    ) -> list[bool]:
        """Write the delivery count of entries that `consumer` still owns; tell which."""
        await self._session.enter()
        written: list[bool] = []
        if not counts:
            return written
        with self._store.lock:
            log, members = self._store.group(stream, group)
            for text, count in counts:
                entry_id = parse_id(text)
                pending = members.owned(entry_id, consumer)
                if pending is not None and log.entries.get(entry_id) is None:
                    # As with a claim: an entry that was deleted leaves the pending list.
                    members.pending.pop(entry_id)
                    pending = None
                if pending is not None:
                    pending.delivery_count = count
                written.append(pending is not None)
        return written

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
        entries = await self.range(dead_letter_key(stream, group), after=after, count=count)
        return [(entry.id, from_fields(entry.fields)) for entry in entries]

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

    def _append(self, entry: NewEntry) -> str | HyperbusError:
        try:
            stream = self._store.make_stream(entry.stream)
        except WrongTypeError as error:
            return PublishRefusedError(str(error))
        entry_id = stream.append((entry.field, entry.body), self._store.clock.now())
        self._store.notify(entry.stream)
        return entry_id.decode()

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


def _start(stream: Stream, after: bytes) -> tuple[int, int]:
    """Read the position of a new group; `$` means the stream's end, as on a server."""
    return stream.last_id if after == b"$" else parse_id(after)
