"""One stream and its groups, as a data structure. Knows no locks, no waiting and no keys."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hyperbus.errors import ServerError
from hyperbus.transport import Entry, GroupInfo, Position, StreamInfo, id_before

EntryId = tuple[int, int]
ZERO: EntryId = (0, 0)
#: What an entry weighs besides its fields, in bytes.
_ENTRY_BYTES = 16

T = TypeVar("T")


def parse_id(text: bytes) -> EntryId:
    """Read an entry id as it comes off the wire.

    Raises:
        ServerError: it is not one.
    """
    milliseconds, _, sequence = text.partition(b"-")
    try:
        return int(milliseconds), int(sequence or b"0")
    except ValueError:
        raise ServerError(f"{text!r} is not an entry id: give one like 1700000000000-0") from None


def format_id(entry_id: EntryId) -> bytes:
    """Write an entry id as it goes over the wire."""
    return b"%d-%d" % entry_id


class IdMap(Generic[T]):
    """Values by entry id, in the order of the ids."""

    def __init__(self) -> None:
        self._ids: list[EntryId] = []
        self._values: dict[EntryId, T] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def get(self, entry_id: EntryId) -> T | None:
        """Return a value, or None."""
        return self._values.get(entry_id)

    def put(self, entry_id: EntryId, value: T) -> None:
        """Store a value; its id has to be above all others, as ids are given out and delivered in order."""
        self._ids.append(entry_id)
        self._values[entry_id] = value

    def pop(self, entry_id: EntryId) -> T | None:
        """Remove a value and return it, or None."""
        value = self._values.pop(entry_id, None)
        if value is not None:
            del self._ids[bisect_left(self._ids, entry_id)]
        return value

    def pop_up_to(self, entry_id: EntryId, limit: int) -> list[T]:
        """Remove what has this id or a lower one, lowest first, at most `limit`; return it."""
        number = min(bisect_right(self._ids, entry_id), limit)
        removed = [self._values.pop(found) for found in self._ids[:number]]
        del self._ids[:number]
        return removed

    def count_between(self, after: EntryId, up_to: EntryId) -> int:
        """Count what has a higher id than `after`, and none higher than `up_to`."""
        return max(0, bisect_right(self._ids, up_to) - bisect_right(self._ids, after))

    def after(self, entry_id: EntryId) -> Iterator[tuple[EntryId, T]]:
        """Walk over what has a higher id. Nothing may be added or removed meanwhile."""
        for index in range(bisect_right(self._ids, entry_id), len(self._ids)):
            found = self._ids[index]
            yield found, self._values[found]

    @property
    def first_id(self) -> EntryId:
        """The lowest id; zero when empty."""
        return self._ids[0] if self._ids else ZERO


@dataclass(slots=True)
class Pending:
    """What a group knows of an entry that is delivered and not acked."""

    consumer: str
    delivered_at: float
    delivery_count: int


@dataclass(slots=True)
class Group:
    """A consumer group on one stream. `entries_read` is None where it is not known."""

    last_delivered: EntryId
    entries_read: int | None = None
    pending: IdMap[Pending] = field(default_factory=IdMap)
    consumers: set[str] = field(default_factory=set)

    @property
    def floor(self) -> EntryId:
        """The id up to which everything is acked."""
        if not len(self.pending):
            return self.last_delivered
        return parse_id(id_before(format_id(self.pending.first_id)))

    def owned(self, entry_id: EntryId, consumer: str) -> Pending | None:
        """Return the pending entry if `consumer` holds it."""
        pending = self.pending.get(entry_id)
        return pending if pending is not None and pending.consumer == consumer else None

    def move(self, entry_id: EntryId, consumer: str, now: float, count: int) -> None:
        """Give a pending entry to a consumer, which then has it from `now` on."""
        pending = self.pending.get(entry_id)
        assert pending is not None
        self.consumers.add(consumer)
        pending.consumer, pending.delivered_at, pending.delivery_count = consumer, now, count

    def held_by(self, consumer: str, after: EntryId = ZERO) -> Iterator[tuple[EntryId, Pending]]:
        """Walk over what `consumer` holds with an id above `after`."""
        return (item for item in self.pending.after(after) if item[1].consumer == consumer)


class Stream:
    """Entries in the order of their ids, the groups that read them, and the counters that `lag` is made of."""

    def __init__(self) -> None:
        self.entries: IdMap[list[bytes]] = IdMap()
        self.groups: dict[str, Group] = {}
        self.last_id: EntryId = ZERO
        #: What the entries weigh, in bytes.
        self.weight = 0
        self._entries_added = 0
        self._highest_deleted: EntryId = ZERO

    def append(self, fields: Sequence[bytes], now: float) -> bytes:
        """Append an entry; its id follows the clock but never goes back."""
        last_ms, last_sequence = self.last_id
        milliseconds = int(now * 1000)
        self.append_as((milliseconds, 0) if milliseconds > last_ms else (last_ms, last_sequence + 1), fields)
        return format_id(self.last_id)

    def append_as(self, entry_id: EntryId, fields: Sequence[bytes]) -> None:
        """Append an entry with an id, which has to be above all others."""
        self.last_id = entry_id
        self.entries.put(entry_id, list(fields))
        self.weight += _weight(fields)
        self._entries_added += 1

    def delete(self, ids: Sequence[EntryId]) -> int:
        """Delete entries as XDEL does: pending lists keep them. Return how many there were."""
        deleted = 0
        for entry_id in ids:
            fields = self.entries.pop(entry_id)
            if fields is not None:
                self.weight -= _weight(fields)
                deleted += 1
                self._highest_deleted = max(self._highest_deleted, entry_id)
        return deleted

    def trim(self, up_to: EntryId, limit: int) -> int:
        """Delete entries with an id up to `up_to`, oldest first, at most `limit`; return how many."""
        removed = self.entries.pop_up_to(up_to, limit)
        self.weight -= sum(map(_weight, removed))
        return len(removed)

    def claimable(self, group: Group, entry_id: EntryId, owner: str) -> Pending | None:
        """Return the pending entry if `owner` holds it; one that was deleted leaves the pending list instead."""
        pending = group.owned(entry_id, owner)
        if pending is not None and self.entries.get(entry_id) is None:
            group.pending.pop(entry_id)
            return None
        return pending

    def read(self, after: EntryId, count: int) -> list[Entry]:
        """Return the first `count` entries above `after`."""
        found: list[Entry] = []
        for entry_id, fields in self.entries.after(after):
            if len(found) >= count:
                break
            found.append(Entry(format_id(entry_id), list(fields)))
        return found

    def deliver(self, group: Group, consumer: str, count: int, now: float) -> list[Entry]:
        """Hand the next entries to a consumer, which then holds them pending."""
        delivered = self.read(group.last_delivered, count)
        for entry in delivered:
            entry_id = parse_id(entry.id)
            self._count_read(group, entry_id)
            group.pending.put(entry_id, Pending(consumer, now, 1))
        return delivered

    def redeliver(self, group: Group, consumer: str, after: EntryId, count: int, now: float) -> list[Entry]:
        """Return what a consumer already holds; count that as a delivery, unless the entry is gone."""
        found: list[Entry] = []
        for entry_id, pending in group.held_by(consumer, after):
            if len(found) >= count:
                break
            fields = self.entries.get(entry_id)
            if fields is not None:
                pending.delivered_at = now
                pending.delivery_count += 1
            found.append(Entry(format_id(entry_id), list(fields or [])))
        return found

    def info(self, name: str) -> StreamInfo:
        """Return the state of the stream and its groups, the groups by name."""
        groups = [
            GroupInfo(
                group=group_name,
                consumers=len(group.consumers),
                pending=len(group.pending),
                lag=self._lag(group),
                last_delivered_id=format_id(group.last_delivered),
            )
            for group_name, group in sorted(self.groups.items())
        ]
        return StreamInfo(name, len(self.entries), groups)

    def position(self, name: str) -> Position | None:
        """Return how far a group is; None where it is missing."""
        group = self.groups.get(name)
        if group is None:
            return None
        return Position(
            added=self._entries_added,
            length=len(self.entries),
            first=format_id(self.entries.first_id) if len(self.entries) else None,
            last=format_id(self.last_id),
            deleted=format_id(self._highest_deleted),
            read=group.entries_read,
            delivered=format_id(group.last_delivered),
        )

    def _count_read(self, group: Group, entry_id: EntryId) -> None:
        last = group.last_delivered
        if group.entries_read is not None and last >= self.entries.first_id and not self._has_gap_after(last):
            group.entries_read += 1
        else:
            group.entries_read = self._position(entry_id)
        group.last_delivered = entry_id

    def _lag(self, group: Group) -> int | None:
        """Count what the group has not been given, where the counters can tell; a server gives up in the same cases."""
        if not self._entries_added:
            return 0
        read = group.entries_read
        if read is None or self._has_gap_after(group.last_delivered):
            read = self._position(group.last_delivered)
        return None if read is None else self._entries_added - read

    def _has_gap_after(self, entry_id: EntryId) -> bool:
        """Tell whether an entry at or above `entry_id` may have been deleted."""
        if not len(self.entries) or self._highest_deleted < self.entries.first_id:
            return False
        return entry_id <= self._highest_deleted

    def _position(self, entry_id: EntryId) -> int | None:
        """Tell how many entries were ever added up to `entry_id`, where that is certain."""
        if entry_id == self.last_id or (not len(self.entries) and entry_id < self.last_id):
            return self._entries_added
        first_id = self.entries.first_id
        if entry_id > first_id or self._highest_deleted >= first_id:
            return None
        return self._entries_added - len(self.entries) + (entry_id == first_id)


def _weight(fields: Sequence[bytes]) -> int:
    return _ENTRY_BYTES + sum(map(len, fields))
