"""Reads without a group, from a position of its own in each stream: for `every_process`, and for `bus.read`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import BusUnavailable, HyperbusError, ServerError, WrongTypeError
from hyperbus.runtime.coordination.refusals import Losses, is_final
from hyperbus.runtime.group.stream_set import LOOK_AGAIN, StreamSet
from hyperbus.runtime.group.stream_turns import MANY, Turn
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.read_size import READ_BYTES, ReadSize
from hyperbus.runtime.in_flight.received import receive
from hyperbus.runtime.reading.read_planner import Rounds, share
from hyperbus.signals import Announcer
from hyperbus.transport import FIRST_ID, Read, Reader
from hyperbus.transport.births import read_births

#: How long a read waits for something new before it is asked again.
BLOCK: Seconds = 2.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
#: How long a refusal that may pass, as for want of rights, is waited for before it is a reason to give up.
PATIENCE: Seconds = 10.0
#: Streams that are refused one after the other, and nothing else, say that the server refuses them all.
_ENOUGH = 20


class Cursor:
    """A position in each stream, and the reads that begin there.

    A server that is away is asked again after a while; a stream that it refuses to read is set aside, and the others
    go on.
    """

    def __init__(
        self, name: str, connection: Reader, stream_set: StreamSet, announcer: Announcer, clock: Clock
    ) -> None:
        self._connection = connection
        self._stream_set = stream_set
        self._clock = clock
        self._positions: dict[str, bytes] = {}
        self._changed = asyncio.Event()
        self._pause = _FIRST_PAUSE
        self._losses = Losses(announcer, f"reader of {name}")
        self._rounds = Rounds()
        #: What entries weigh, and how much a read may ask for.
        self.sizes = ReadSize()
        #: Entries of each stream that the last read asked for.
        self.page = 1
        self._stopped = False
        self._refused_since: float | None = None
        #: Why nothing can be read, though the server is there, and waiting may not help; None while something can.
        self.refusal: HyperbusError | None = None

    async def add_streams(self, positions: Mapping[str, bytes]) -> None:
        """Read these streams of the set too, after these ids."""
        self._positions = {**positions, **self._positions}
        self._changed.set()
        await self._connection.wake()

    def advance(self, stream: str, entry_id: bytes) -> None:
        """Let the next read of a stream begin after an entry."""
        self._positions[stream] = entry_id

    async def look_soon(self) -> None:
        """End a wait: there is something else to read."""
        self._changed.set()
        await self._connection.wake()

    def let_go(self, notice: bytes) -> None:
        """Read streams no more that have come to an end; if they begin again, they are read from their first entry."""
        for name in self._stream_set.remove(read_births(notice)):
            self._positions.pop(name, None)

    async def stop(self) -> None:
        """Let a read that waits return."""
        self._stopped = True
        self._changed.set()
        await self._connection.wake()

    def is_stopped(self) -> bool:
        """Tell whether `stop` was called."""
        return self._stopped

    def streams(self) -> int:
        """Return how many streams the next read asks, at most."""
        return min(len(self._stream_set.readable()), MANY)

    async def read(self, *, count: int) -> Read:
        """Return what comes next, at most `count` entries of each stream; [] when there was nothing, or it failed.

        It is fewer where entries are large, or larger reads failed.

        Waits for the first entry for `BLOCK` seconds, and after a failure for longer each time. Never raises for the
        server's sake: what is wrong with it is announced, and is the `refusal` where waiting may not help.
        """
        if self._stream_set.has_refused:
            await self._look_again()
        names = self._stream_set.readable()
        turns, time = self._stream_set.turns, self._clock.monotonic
        turn = turns.next(names, time(), room=count * MANY) if names else Turn((), None)
        positions = {name: self._positions[name] for name in turn.names if name in self._positions}
        block = min(BLOCK if turn.wait is None else turn.wait, LOOK_AGAIN if self._stream_set.has_refused else BLOCK)
        if not positions:
            await self._wait(block)
            return []
        if self.sizes.most < len(positions):
            ask = self._rounds.next(tuple(positions), self.sizes.most)
            positions = {name: positions[name] for name in ask.names}
            block = block if ask.waits else 0.0
        self.page = count = max(
            1, min(count, self.sizes.most // len(positions), self.sizes.fits(READ_BYTES) // len(positions))
        )
        try:
            read = await self._connection.read(positions, count=count, block=block)
        except BusUnavailable as error:
            self.sizes.failed(count * len(positions))
            self._losses.lost(error)
        except HyperbusError as error:
            await self._refused(positions, error)
        else:
            self._pause = _FIRST_PAUSE
            self.refusal = self._refused_since = None
            self._losses.found()
            self._rounds.answered(any_came=bool(read))
            self._weigh(read)
            if turn.wait is not None:
                turns.answered(turn, positions, count, read, time())
            return read
        await self._wait(self._pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return []

    def _weigh(self, read: Read) -> None:
        """Learn from what came how much the next read may ask for."""
        entries = [fields for _, page in read for _, fields in page.pairs]
        if entries:
            self.sizes.saw(len(entries), sum(sum(map(len, fields)) for fields in entries))
        self.sizes.passed(len(entries))

    async def _refused(self, positions: Mapping[str, bytes], error: HyperbusError) -> None:
        """Set aside the streams that cannot be read; where that leaves nothing, note why."""
        before = len(self._stream_set.readable())
        if not await self._set_aside(positions):
            return  # the server is away by now: the next read finds out
        readable = self._stream_set.readable()
        if not readable or len(readable) == before:  # all of them, or it is not because of a stream
            now = self._clock.monotonic()
            self._refused_since = now if self._refused_since is None else self._refused_since
            if is_final(error) or now - self._refused_since >= PATIENCE:
                self.refusal = error
            if readable:
                self._losses.lost(error)

    async def _set_aside(self, positions: Mapping[str, bytes]) -> bool:
        """Set aside the streams that the server refuses to read; False: it went away meanwhile.

        Where it refuses all of them, only those are set aside that are no streams.
        """
        refused: dict[str, ServerError] = {}
        some_readable = False
        for name in random.sample(list(positions), len(positions)):
            try:
                await self._probe(name)
            except BusUnavailable:
                return False
            except ServerError as error:
                refused[name] = error
                if len(refused) >= _ENOUGH and not some_readable:
                    break
            else:
                some_readable = True
        for name, refusal in refused.items():
            if some_readable or isinstance(refusal, WrongTypeError):
                self._stream_set.set_aside(name, refusal)
        return True

    async def _look_again(self) -> None:
        """Take streams up again that were refused and can be read now."""
        for name in self._stream_set.due():
            try:
                await self._probe(name)
            except HyperbusError:
                continue
            self._stream_set.readmit(name)

    async def _probe(self, stream: str) -> None:
        """Read one stream, without waiting; what comes is read again later."""
        await self._connection.read({stream: self._positions.get(stream, FIRST_ID)}, count=1, block=0)

    async def _wait(self, seconds: Seconds) -> None:
        """Wait, but not while something has changed, or after `stop`."""
        self._changed.clear()
        if self._stopped:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()


class CursorReader:
    """Reads into the inbox of a consumer whose every process sees every event.

    It begins after what each stream holds at the start; a stream born later is read from its first entry.
    """

    def __init__(self, cursor: Cursor, stream_set: StreamSet, inbox: Inbox, clock: Clock) -> None:
        self._cursor = cursor
        self._stream_set = stream_set
        self._inbox = inbox
        self._clock = clock

    async def run(self) -> None:
        """Read until stopped."""
        while not self._cursor.is_stopped():
            room = await self._inbox.wait_for_room()
            if self._cursor.is_stopped():
                return
            read = await self._cursor.read(count=share(room, self._cursor.streams()))
            now = self._clock.now()
            for stream, page in read:
                self._cursor.advance(stream, page.pairs[-1][0])
                self._inbox.put(stream, receive(stream, self._stream_set.type_in(stream), page.pairs, now))

    async def stop(self) -> None:
        """Let `run` end; a read that is under way is taken in first."""
        await self._cursor.stop()
