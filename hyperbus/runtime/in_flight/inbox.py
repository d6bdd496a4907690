"""What a worker holds: entries that were delivered to it and are not acked yet. Bounded by count and bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat

from hyperbus.runtime.in_flight.pace import SOON, Pace
from hyperbus.runtime.in_flight.read_size import ReadSize
from hyperbus.runtime.in_flight.received import Received

#: Entries of one read, at most; more gains nothing and holds the server longer.
READ_COUNT = 500
#: Entries that a read asks for, if there is room, however little the inbox may hold in all.
_LEAST_READ = 16
#: Who waits for entries and is woken at a time; see `Inbox.wait`.
_WOKEN = 2


def _do_nothing() -> None:
    return


class Inbox:
    """Keeps entries between the reader and the handlers, and knows every one that is held until it is released.

    `put` never waits: who reads asks for room first, so one read can go over the limit, and only one.
    """

    def __init__(self, most: int, most_bytes: int, pace: Pace | None = None) -> None:
        """Make one.

        Args:
            most: entries that may be held.
            most_bytes: bytes that they may take.
            pace: how many of them may wait to be handled; None: any number.
        """
        self._pace = pace
        #: While nobody reads for want of room: how few entries have to be left waiting until somebody does.
        self._low = 0
        self._gone: set[tuple[str, bytes]] | None = None
        self._most = most
        self._most_bytes = most_bytes
        # A quarter: while the server reads one for us and another is being acked, two are there to be handled.
        self._most_read = min(READ_COUNT, max(most // 4, _LEAST_READ))
        self._worthwhile = min(self._most_read, max(1, most // 2))
        self._waiting: deque[Received] = deque()
        #: By stream, the size of each entry by its id.
        self._held: dict[str, dict[bytes, int]] = {}
        self._count = 0
        self._bytes = 0
        #: What entries weigh, and how much a read may ask for.
        self.sizes = ReadSize()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._freed = asyncio.Event()
        self._interrupted = False
        self._on_starving: Callable[[], None] = _do_nothing
        #: Since when a read waits for entries, on the monotonic clock; None while none does. Who reads writes it.
        self.awaited_since: float | None = None
        #: Whether nothing more is handed out.
        self.closed = False

    @property
    def held(self) -> int:
        """How many entries are held: waiting, being handled, between tries, or on their way to being acked."""
        return self._count

    def room(self) -> int:
        """Return how many entries the next read may ask for; 0 when there is no room."""
        free = self._most - self._count
        free_bytes = self._most_bytes - self._bytes
        if free <= 0 or free_bytes <= 0:
            return 0
        return max(1, min(free, self._most_read, self.sizes.fits(free_bytes)))

    def _fitting(self) -> int:
        """Return how many entries of the size that was last seen fit into the bytes that may be held."""
        return int(self._most_bytes / self.sizes.seen)

    @property
    def fits(self) -> int:
        """How many entries a read may bring for want of bytes, if it were for nothing else."""
        return self.sizes.fits(self._most_bytes - self._bytes)

    def wanted(self) -> int:
        """Return how many entries are wanted: what begins soon, as far as there is room; the rest is for others."""
        room = self.room()
        return room if self._pace is None else max(0, min(room, self._soon(self._pace) - len(self._waiting)))

    def _soon(self, pace: Pace) -> int:
        """Return how many entries may wait to be handled."""
        return pace.free() + pace.within(SOON)

    def surplus(self) -> int:
        """Return how many entries wait that will not begin soon."""
        waiting = len(self._waiting)
        return max(0, waiting - self._soon(self._pace)) if waiting and self._pace is not None else 0

    def take_surplus(self, most: int) -> list[Received]:
        """Take the oldest of those that will not begin soon, at most `most`; they are held until released.

        None that is a suspect: whether it is one is not known to others.
        """
        surplus = min(most, self.surplus())
        items = list(self._waiting)
        first = len(items) - self.surplus()
        taken = [item for item in items[first:] if not item.suspect][:surplus]
        chosen = set(map(id, taken))
        self._waiting = deque(item for item in items if id(item) not in chosen)
        return taken

    def _is_worthwhile(self, room: int) -> bool:
        return room > 0 and (not self._waiting or room >= min(self._worthwhile, self._fitting() // 4))

    async def wait_for_room(self) -> int:
        """Wait until there is room, or the inbox is closed; return how much.

        While entries wait to be handled, small room is left to grow: many small reads cost more than a large one.
        """
        while not self.closed:
            room = self.room()
            if self._is_worthwhile(room):
                return room
            self._starve()
            self._freed.clear()
            await self._freed.wait()
        return self.room()

    async def wait_until_wanted(self) -> int:
        """Wait until enough entries are wanted to be worth a read, or the inbox is closed; return how many.

        Returns 0 when interrupted. It is worth one as soon as half of what may wait has begun, or, where handlers are
        quick, as `wait_for_room` says.
        """
        if self._pace is None:
            return await self.wait_for_room()
        self._interrupted = False
        while not (self.closed or self._interrupted):
            room, soon, waiting = self.room(), self._soon(self._pace), len(self._waiting)
            enough = max(1, min(self._worthwhile, self._fitting() // 4, soon // 2)) if waiting else 1
            if room >= enough and soon - waiting >= enough:
                return min(room, soon - waiting)
            if room < enough:
                self._starve()
            self._low = soon - enough if room >= enough else 0
            self._freed.clear()
            await self._freed.wait()
        return 0

    def interrupt(self) -> None:
        """Let `wait_until_wanted` return: there is something else to be done first."""
        self._interrupted = True
        self._freed.set()

    def when_starving(self, hurry: Callable[[], None]) -> None:
        """Call `hurry` when a read waits for acks: nothing is left to handle, or entries are so large that few fit."""
        self._on_starving = hurry

    def _starve(self) -> None:
        if not self._waiting or self._fitting() < self._most:
            self._on_starving()

    @contextmanager
    def remembering(self) -> Iterator[set[tuple[str, bytes]]]:
        """Yield what is released meanwhile: a question about what is pending may have been answered before its ack."""
        gone: set[tuple[str, bytes]] = set()
        self._gone = gone
        try:
            yield gone
        finally:
            self._gone = None

    def holds(self, stream: str, entry_id: bytes) -> bool:
        """Tell whether an entry is held here."""
        return entry_id in self._held.get(stream, ())

    def held_ids(self) -> dict[str, set[bytes]]:
        """Return the ids of all that is held, by stream."""
        return {stream: set(held) for stream, held in self._held.items() if held}

    def held_of(self, stream: str) -> int:
        """Return how many entries of a stream are held."""
        return len(self._held.get(stream, ()))

    def put(self, stream: str, received: Sequence[Received]) -> None:
        """Take entries of one stream in, in order; one that is held already is left as it is."""
        taken = self.hold(stream, received)
        if taken:
            pace = self._pace
            if pace is not None and not self._waiting and pace.free():
                pace.resume()
            self._waiting.extend(taken)
            self._wake(_WOKEN)

    def hold(self, stream: str, received: Sequence[Received]) -> Sequence[Received]:
        """Count entries of one stream as held, without handing them out; return those that were not held before."""
        held = self._held.setdefault(stream, {})
        taken = {item.id: item.size for item in received}
        if len(taken) < len(received) or not held.keys().isdisjoint(taken):
            received = tuple({item.id: item for item in received if item.id not in held}.values())
            taken = {item.id: item.size for item in received}
        added = len(taken)
        if not added:
            return ()
        held |= taken
        size = sum(taken.values())
        self._count += added
        self._bytes += size
        self.sizes.saw(added, size)
        return received

    def requeue(self, item: Received) -> None:
        """Hand out an entry again that is still held; before all others."""
        self._waiting.appendleft(item)
        self._wake(1)

    def take(self) -> Received | None:
        """Return the next entry to handle; None when none waits, or when closed."""
        waiting = self._waiting
        if not waiting or self.closed:
            return None
        item = waiting.popleft()
        self._after_taking()
        return item

    def take_more(self, most: int) -> list[Received]:
        """Return the next entries to handle together, at most `most`, up to one that is to be handled alone."""
        waiting = self._waiting
        if not waiting or self.closed:
            return []
        if most == 1:  # what handlers that wait ask for, again and again
            taken = [] if waiting[0].alone else [waiting.popleft()]
            self._after_taking()
            return taken
        taken = [waiting.popleft() for _ in range(min(most, len(waiting)))]
        alone = [item.alone for item in taken]
        if True in alone:
            first = alone.index(True)
            waiting.extendleft(reversed(taken[first:]))
            del taken[first:]
        if taken:
            self._after_taking()
        return taken

    def _after_taking(self) -> None:
        left = len(self._waiting)
        if left <= self._low:
            self._freed.set()  # with nothing left, what room there is should be filled, however little
        if left and self._waiters:
            self._wake(_WOKEN)

    @property
    def waiting(self) -> int:
        """How many entries nobody began to handle."""
        return len(self._waiting)

    async def wait(self) -> None:
        """Wait until an entry may be there, or the inbox is closed.

        Entries that come wake two of those who wait, and each of them two more when it takes one and leaves others: so
        all are awake soon, if their handlers wait, and few in vain, if the first can handle everything at once.
        """
        if self._waiting or self.closed:
            return
        if self._pace is not None:
            self._pace.rested = self._pace.monotonic()
            self._freed.set()  # a lane is free
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake(1)  # the call was for somebody who left: pass it on
            raise

    def release(self, stream: str, entry_ids: Iterable[bytes]) -> None:
        """Forget entries: they are acked, dead-lettered, or another worker's."""
        if self._gone is not None:
            entry_ids = tuple(entry_ids)
            self._gone.update((stream, entry_id) for entry_id in entry_ids)
        held = self._held.get(stream)
        if not held:
            return
        before = len(held)
        self._bytes -= sum(map(held.pop, entry_ids, repeat(0)))
        self._count -= before - len(held)
        # setting it for every ack would wake the reader for room that it leaves to grow
        if self._is_worthwhile(self.room()):
            self._freed.set()

    def give_up(self, received: Iterable[Received]) -> None:
        """Release entries that are another worker's by now."""
        for item in received:
            self.release(item.stream, (item.id,))

    def close(self) -> list[Received]:
        """Hand out nothing more; return what nobody began to handle."""
        self.closed = True
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
