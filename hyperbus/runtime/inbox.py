"""What a worker holds: entries that were delivered to it and are not acked yet. Bounded by count and bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

import msgspec

from hyperbus.transport import Entry

#: Entries of one read, at most; more gains nothing and holds the server longer.
READ_COUNT = 500
#: Size of an entry that a first read reckons with, in bytes; later reads reckon with what they saw.
_FIRST_SIZE = 16 * 1024


class Received(msgspec.Struct, gc=False, eq=False):
    """An entry in this worker's hands.

    Attributes:
        stream: the stream's key.
        event_type: the type that the stream holds.
        entry: as it was read.
        tries: how often the group was handed it, the next time included.
        first_time: when the group was first handed it, as far as this worker knows; seconds since the epoch.
        size: what it counts for, in bytes.
        alone: it may be what makes a handler fail or a process die, so it is handed over without neighbours.
    """

    stream: str
    event_type: str
    entry: Entry
    tries: int
    first_time: float
    size: int
    alone: bool = False


def size_of(entry: Entry) -> int:
    """Return what an entry counts for, in bytes."""
    return sum(map(len, entry.fields))


class Inbox:
    """Keeps entries between the reader and the handlers, and knows every one that is held until it is let go.

    `put` never waits: who reads asks for room first, so one read can go over the limit, and only one.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: deque[Received] = deque()
        self._held: dict[tuple[str, bytes], Received] = {}
        self._bytes = 0
        self._seen_size = float(_FIRST_SIZE)
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._freed = asyncio.Event()
        self._closed = False

    @property
    def held(self) -> int:
        """How many entries are held: waiting, being handled, between tries, or on their way to being acked."""
        return len(self._held)

    @property
    def closed(self) -> bool:
        """Whether nothing more is handed out."""
        return self._closed

    def room(self) -> int:
        """Return how many entries the next read may ask for; 0 when there is no room."""
        free = self._most - len(self._held)
        free_bytes = self._most_bytes - self._bytes
        if free <= 0 or free_bytes <= 0:
            return 0
        return max(1, min(free, READ_COUNT, int(free_bytes / self._seen_size)))

    async def wait_for_room(self) -> int:
        """Wait until there is room, or the inbox is closed; return how much."""
        while not (room := self.room()) and not self._closed:
            self._freed.clear()
            await self._freed.wait()
        return room

    def holds(self, stream: str, entry_id: bytes) -> bool:
        """Tell whether an entry is held here."""
        return (stream, entry_id) in self._held

    def put(self, received: Iterable[Received]) -> None:
        """Take entries in, in order; one that is held already is left as it is."""
        added = 0
        size = 0
        for item in received:
            key = (item.stream, item.entry.id)
            if key in self._held:
                continue
            self._held[key] = item
            self._waiting.append(item)
            size += item.size
            added += 1
        if added:
            self._bytes += size
            self._seen_size += 0.2 * (max(size / added, 64.0) - self._seen_size)
            self._wake(added)

    def put_back(self, item: Received) -> None:
        """Hand out an entry again that is still held; before all others."""
        self._waiting.appendleft(item)
        self._wake(1)

    def take(self) -> Received | None:
        """Return the next entry to handle; None when none waits, or when closed."""
        if self._waiting and not self._closed:
            return self._waiting.popleft()
        return None

    def peek(self) -> Received | None:
        """Return the next entry to handle without taking it."""
        return self._waiting[0] if self._waiting and not self._closed else None

    async def wait(self) -> None:
        """Wait until an entry may be there, or the inbox is closed. Only as many who wait are woken as entries come."""
        if self._waiting or self._closed:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake(1)  # the call was for somebody who left: pass it on
            raise

    def let_go(self, stream: str, entry_ids: Iterable[bytes]) -> None:
        """Forget entries: they are acked, dead-lettered, or another worker's."""
        for entry_id in entry_ids:
            item = self._held.pop((stream, entry_id), None)
            if item is not None:
                self._bytes -= item.size
        self._freed.set()

    def close(self) -> list[Received]:
        """Hand out nothing more; return what nobody began to handle."""
        self._closed = True
        left = list(self._waiting)
        self._waiting.clear()
        self._freed.set()
        self._wake(len(self._waiters))
        return left

    def _wake(self, count: int) -> None:
        while count and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1
