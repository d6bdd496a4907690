"""The storage contracts, in the words of Redis Streams: `Streams` for events, `Records` for everything else.

Batch first: a method is one round trip, however many entries it is given. Every implementation passes
`tests/conformance`; the memory one is a verified fake of the Redis one.

Rules that hold for every method:

* It waits at most the transport's command timeout (reads that block: their `block` on top).
* `BusUnavailable`: the server cannot be reached. What the method asks is safe to ask again.
* `ServerError`, or a subclass that names the case: the server refused.
* Cancelling it is safe; what was asked for may still happen.
* Stream and group names are `str`; entry ids and bodies are `bytes`, as they come off the wire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from hyperbus.clock import Seconds
from hyperbus.errors import HyperbusError

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


#: What a read returns: for each stream that had something, its entries in order.
Read = list[tuple[str, list[Entry]]]


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


class Reader(Protocol):
    """A connection of its own for reads that wait. One reader is used by one task at a time, but for `wake`.

    After `BusUnavailable` from `read_group` it is not known whether entries were delivered: the caller asks
    `read_pending` what it holds. The reader connects again by itself at its next use.
    """

    async def read_group(
        self, group: str, consumer: str, streams: Sequence[str], *, count: int, block: Seconds
    ) -> Read:
        """Deliver new entries to `consumer` (XREADGROUP >), at most `count` a stream.

        Waits up to `block` seconds for the first; returns [] when there was none, or when woken. `block=0`
        does not wait.

        Raises:
            GroupNotFoundError: a stream or its group is missing; nothing was delivered.
            WrongTypeError: a key is not a stream; nothing was delivered.
        """
        ...

    async def read_pending(self, group: str, consumer: str, stream: str, *, after: bytes, count: int) -> list[Entry]:
        """Return what `consumer` holds pending with an id above `after`, oldest first, at most `count`.

        An entry that was deleted meanwhile has no fields. Raises the delivery count, as the server does.
        """
        ...

    async def read(self, positions: Mapping[str, bytes], *, count: int, block: Seconds) -> Read:
        """Return entries above a position in each stream (XREAD), at most `count` a stream; waits like `read_group`.

        A stream that does not exist yet is waited for.
        """
        ...

    async def wake(self) -> None:
        """Make a blocked read return now with []; at worst it returns when its `block` is over. Never raises."""
        ...

    async def close(self) -> None:
        """Close the connection; a blocked read raises `BusUnavailable`."""
        ...


class Streams(Protocol):
    """Streams and their groups."""

    async def append(self, entries: Sequence[NewEntry]) -> list[str | HyperbusError]:
        """Append entries in order (XADD); return one item an entry, in order: its id, or the error it met.

        `BusUnavailable`: it was not sent. `PublishUncertain`: it was sent and no answer came.
        `PublishRefusedError`: the server said no. Never raises these.
        """
        ...

    async def create_groups(self, groups: Sequence[tuple[str, str, bytes]]) -> list[bool]:
        """Create (stream, group, after this id) where missing, with the stream; tell which were created (XGROUP)."""
        ...

    async def ack(self, acks: Sequence[tuple[str, str, Sequence[bytes]]]) -> list[int]:
        """Ack (stream, group, ids); return how many of the ids were still pending (XACK). Asking twice is safe."""
        ...

    async def pending_summaries(self, groups: Sequence[tuple[str, str]]) -> list[PendingSummary]:
        """Return the summary of each (stream, group); an empty one where either is missing (XPENDING)."""
        ...

    async def pending(
        self,
        stream: str,
        group: str,
        *,
        consumer: str | None = None,
        after: bytes = FIRST_ID,
        count: int = 100,
    ) -> list[PendingEntry]:
        """Return pending entries with an id above `after`, oldest first; [] where the group is missing (XPENDING)."""
        ...

    async def claim(
        self, stream: str, group: str, consumer: str, ids: Sequence[bytes], *, owner: str
    ) -> list[tuple[Entry, int]]:
        """Take over those of `ids` that `owner` still holds; return each with its delivery count, which rises by one.

        Entries that were deleted meanwhile leave the pending list and are not returned. Atomic, by a script.
        """
        ...

    async def set_delivery_counts(
        self, stream: str, group: str, consumer: str, counts: Sequence[tuple[bytes, int]]
    ) -> list[bool]:
        """Write the delivery count of entries that `consumer` still owns; tell which. Atomic for each entry."""
        ...

    async def dead_letter(self, stream: str, group: str, consumer: str, letters: Sequence[DeadLetter]) -> list[bool]:
        """Append to the group's dead letters and ack, atomically, where `consumer` still owns the entry; tell which."""
        ...

    async def dead_letters(
        self, stream: str, group: str, *, after: bytes = FIRST_ID, count: int = 100
    ) -> list[tuple[bytes, DeadLetter]]:
        """Return the group's dead letters with their own ids, oldest first."""
        ...

    async def remove_consumer(self, group: str, consumer: str, streams: Sequence[str]) -> int:
        """Remove `consumer` from its group where it has nothing pending; return from how many. Atomic, by a script."""
        ...

    async def range(self, stream: str, *, after: bytes = FIRST_ID, count: int = 100) -> list[Entry]:
        """Return entries with an id above `after`, oldest first (XRANGE)."""
        ...

    async def last_ids(self, streams: Sequence[str]) -> list[bytes]:
        """Return the highest id each stream ever gave out; `FIRST_ID` for one that does not exist."""
        ...

    async def info(self, streams: Sequence[str]) -> list[StreamInfo | None]:
        """Return the state of each stream; None for one that does not exist."""
        ...

    async def scan(self, pattern: str) -> list[str]:
        """Return every stream whose key matches a glob of the server's (SCAN); many round trips, none of them long."""
        ...


class Records(Protocol):
    """Small things with a life of their own: heartbeats, leases, directories. Names are relative to the prefix."""

    async def put(self, name: str, value: bytes, *, ttl: Seconds | None = None) -> None:
        """Store a value, for `ttl` seconds if given."""
        ...

    async def renew(self, names: Sequence[str], *, ttl: Seconds) -> list[bool]:
        """Let records live for another `ttl` seconds; False for one that is gone. A full server still takes this."""
        ...

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the values; None for a record that is gone."""
        ...

    async def delete(self, names: Sequence[str]) -> int:
        """Delete records; return how many there were."""
        ...

    async def compare_and_set(
        self, name: str, expected: bytes | None, value: bytes | None, *, ttl: Seconds | None = None
    ) -> bool:
        """Store `value` if the record holds `expected` (None: is not there); a `value` of None deletes. Atomic."""
        ...

    async def add_members(self, name: str, members: Mapping[str, float]) -> int:
        """Add members with their times to a sorted set; those that are there keep theirs. Return how many were new."""
        ...

    async def members(
        self, name: str, *, minimum: float = float("-inf"), maximum: float = float("inf"), count: int = 1000
    ) -> list[tuple[str, float]]:
        """Return members whose time lies between the two, both included, earliest first."""
        ...

    async def remove_members(self, name: str, members: Sequence[str]) -> int:
        """Remove members; return how many there were."""
        ...

    async def server_time(self) -> float:
        """Return the server's clock, seconds since the epoch."""
        ...


class Transport(Protocol):
    """A place where events are kept: its streams, its records, and the connections to them."""

    @property
    def streams(self) -> Streams:
        """Its streams."""
        ...

    @property
    def records(self) -> Records:
        """Its records."""
        ...

    @property
    def description(self) -> str:
        """Where it is, for people: the URL without user and password."""
        ...

    async def open(self) -> None:
        """Connect, and check that the server can be used.

        Raises:
            BusUnavailable: it cannot be reached.
            AuthenticationError: it refused the user or password.
            UnsupportedServerError: it is too old.
        """
        ...

    async def close(self) -> None:
        """Close every connection, readers too. Twice is safe."""
        ...

    def open_reader(self) -> Reader:
        """Return a new reader; it connects at its first use."""
        ...

    def separate(self) -> Transport:
        """Return another transport to the same place, unopened, for use on another event loop (a thread's)."""
        ...
