"""What the storage contracts take and return: entries, their ids, and what is known about them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

from hyperbus.clock import Seconds
from hyperbus.errors import InvalidSettingError

#: The id before every entry.
FIRST_ID = b"0-0"


class NewEntry(NamedTuple):
    """An entry that is to be appended: it has exactly one field."""

    stream: str
    field: bytes
    body: bytes


class Entry(NamedTuple):
    """What a stream stores. `fields` is flat: name, value, name, value."""

    id: bytes
    fields: list[bytes]


class Page(Sequence[Entry]):
    """Entries of one stream, in order, as a read returns them.

    An `Entry` is made for whoever looks at one: next to all of them go on without, and making it costs as much as
    parsing it.

    Attributes:
        pairs: id and fields of each entry, as they were parsed: tuples or lists of two.
    """

    __slots__ = ("pairs",)

    def __init__(self, pairs: Sequence[Sequence[Any]]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Page: ...
    def __getitem__(self, index: int | slice) -> Entry | Page:
        return Page(self.pairs[index]) if isinstance(index, slice) else Entry(*self.pairs[index])

    def __iter__(self) -> Iterator[Entry]:
        return (Entry(*pair) for pair in self.pairs)

    def __repr__(self) -> str:
        return f"Page({list(self)})"


#: What a read returns: for each stream that had something, its entries.
Read = list[tuple[str, Page]]


class PendingEntry(NamedTuple):
    """An entry that was delivered to a consumer of a group and is not acked."""

    id: bytes
    consumer: str
    idle: Seconds
    delivery_count: int


class PendingSummary(NamedTuple):
    """How much of a stream is pending in a group, and with whom. `consumers` leaves out those with nothing."""

    total: int
    consumers: dict[str, int]


class GroupInfo(NamedTuple):
    """The state of a group on a stream. `lag` is None where the server does not know it; it is never guessed."""

    group: str
    consumers: int
    pending: int
    lag: int | None
    last_delivered_id: bytes


class StreamInfo(NamedTuple):
    """The state of a stream."""

    stream: str
    length: int
    groups: list[GroupInfo]


class Position(NamedTuple):
    """How far a group is on a stream, and what was added to the stream and deleted from it.

    Attributes:
        added: entries that were ever added.
        length: entries that are there.
        first: the id of the first of these; None where there is none.
        last: the highest id ever given out.
        deleted: the highest id that was deleted other than by trimming; `FIRST_ID` where none was.
        read: how many entries the group was given, as the server reckons it; None where it has lost count.
        delivered: the id of the last one that it was given.
    """

    added: int
    length: int
    first: bytes | None
    last: bytes
    deleted: bytes
    read: int | None
    delivered: bytes

    @property
    def lacks_next(self) -> bool:
        """Whether entries that the group is to be given next may have gone: they were before all that are there."""
        delivered = id_key(self.delivered)
        gap = self.first is not None and delivered < id_key(self.first)
        return gap or delivered < id_key(self.deleted) or (self.first is None and delivered < id_key(self.last))


class DeadLetter(NamedTuple):
    """An entry that must not be retried, and why. Texts are bounded by who makes it.

    Attributes:
        entry_id: its id in the stream it came from.
        fields: its fields as they were read, byte for byte.
        reason: one word: `undecodable`, `rejected`, `exhausted`, `poison`.
        error: type name of the error; "" without one.
        message: what the error says; bounded.
        trace: where it was raised; bounded.
        tries: how often its handler was tried; 0 when it never was.
        first_time: when it was first handed to this group, seconds since the epoch.
        last_time: when it was given up, seconds since the epoch.
    """

    entry_id: bytes
    fields: list[bytes]
    reason: str
    error: str
    message: str
    trace: str
    tries: int
    first_time: float
    last_time: float


class Parked(NamedTuple):
    """An entry that waits, outside the pending list, until it is due.

    Attributes:
        entry_id: its id in the stream it came from.
        fields: its fields as they were read, byte for byte.
        tries: how often its handler was tried.
        first_time: when it was first handed to this group, seconds since the epoch.
        due: when it is to be tried again, seconds since the epoch.
    """

    entry_id: bytes
    fields: list[bytes]
    tries: int
    first_time: float
    due: float


@dataclass(frozen=True, slots=True)
class Durability:
    """What an append waits for, besides the server's own memory.

    Attributes:
        replicas: how many replicas must have the entries (WAIT).
        disk: whether the server must have written them to its own disk (WAITAOF).
        timeout: how long each of the two may take.
    """

    replicas: int = 0
    disk: bool = False
    timeout: Seconds = 1.0

    def __post_init__(self) -> None:
        if self.replicas < 0 or self.timeout <= 0 or not (self.replicas or self.disk):
            raise InvalidSettingError(
                f"{self} waits for nothing: ask for at least one replica or for the disk, and allow some time"
            )


def readable(name: str) -> str:
    r"""Return a name for people. What is no UTF-8 in it becomes escapes such as `\xff`."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


_HIGHEST_SEQUENCE = 2**64 - 1
_ID = re.compile(rb"[0-9]{1,20}-[0-9]{1,20}")


def id_at(seconds: float) -> bytes:
    """Return the lowest id that an entry of this time, in seconds since the epoch, can have."""
    return b"%d-0" % max(0, int(seconds * 1000))


def id_key(entry_id: bytes) -> tuple[int, int]:
    """Return what ids are compared by."""
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence or b"0")


def is_id(text: bytes) -> bool:
    """Tell whether this is an entry id, written out as servers write it."""
    return _ID.fullmatch(text) is not None


def id_before(entry_id: bytes) -> bytes:
    """Return the highest id below this one; `FIRST_ID` stays."""
    milliseconds, sequence = id_key(entry_id)
    if sequence:
        return b"%d-%d" % (milliseconds, sequence - 1)
    return b"%d-%d" % (milliseconds - 1, _HIGHEST_SEQUENCE) if milliseconds else FIRST_ID


def id_after(entry_id: bytes) -> bytes:
    """Return the lowest id above this one."""
    milliseconds, sequence = id_key(entry_id)
    if sequence < _HIGHEST_SEQUENCE:
        return b"%d-%d" % (milliseconds, sequence + 1)
    return b"%d-0" % (milliseconds + 1)
