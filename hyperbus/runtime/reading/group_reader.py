"""Reads new entries of a group into the inbox, on a connection of its own, and finds again what a broken read hid."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import BusUnavailable, GroupNotFoundError, HyperbusError, ServerError
from hyperbus.runtime.in_flight.inbox import Inbox, Received, receive
from hyperbus.runtime.reading.read_planner import Rota, share
from hyperbus.signals import Announcer, ConnectionChanged, GroupRebuilt, Recovered
from hyperbus.transport import FIRST_ID, Page, Reader, Streams

#: How long a read waits for something new before it is asked again.
BLOCK: Seconds = 2.0
#: The same where the group is ordered: a worker that is not to read any more finds out between two reads.
ORDERED_BLOCK: Seconds = 0.2
#: Pending entries that are read again at a time: the server looks each of them up, and does nothing else meanwhile.
RECOVER_PAGE = 100
#: How long a stream that cannot be read is left alone.
SHUN: Seconds = 30.0
#: Entries that are counted, when a group is rebuilt, of those it may see again.
COUNT_LIMIT = 100_000
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class Resume(Protocol):
    """Lets entries wait out their next try; see `retrier.Retrier.resume`."""

    async def __call__(self, stream: str, items: Sequence[Received], *, claimed: bool) -> Sequence[Received]:
        """Return those that are to be handed over now."""
        ...


class GroupReader:
    """Reads for one consumer of a group.

    1. Waits for room in the inbox, then for entries; one read covers every stream of the group. Where many have more
       than it can take, `Rota` lets them take turns.
    2. After any read that may have been answered unheard, asks for what this consumer holds pending.
    3. Creates a group again that the server has lost.
    4. Leaves alone, for a while, a stream that is no stream.
    """

    def __init__(
        self,
        reader: Reader,
        streams: Streams,
        inbox: Inbox,
        announcer: Announcer,
        clock: Clock,
        *,
        group: str,
        consumer: str,
        type_in: Callable[[str], str],
        start_of: Callable[[str], Awaitable[bytes]],
    ) -> None:
        self._may_read_until: Callable[[], float] | None = None
        self._start_of = start_of
        self._resume: Resume | None = None
        #: The last id that was read of each stream: what a rebuilt group may see again.
        self._seen: dict[str, bytes] = {}
        self._reader = reader
        self._streams = streams
        self._inbox = inbox
        self._announcer = announcer
        self._clock = clock
        self._group = group
        self._consumer = consumer
        self._type_in = type_in
        self._names: tuple[str, ...] = ()
        self._rota = Rota()
        self._shunned: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._ambiguous = False
        self._recovering = False
        self._told = asyncio.Event()
        self._lost = False
        self._stopping = False

    async def add_streams(self, names: Iterable[str]) -> None:
        """Read these streams too, from now on; their groups exist."""
        self._names = tuple(dict.fromkeys((*self._names, *names)))
        self._changed.set()
        await self._reader.wake()

    def read_only_until(self, may_read_until: Callable[[], float]) -> None:
        """Read only while the monotonic clock is below what `may_read_until` says: the group is ordered."""
        self._may_read_until = may_read_until

    def resume_with(self, resume: Resume) -> None:
        """Ask `resume` which of the entries that are found again are to be handed over now."""
        self._resume = resume

    def recover(self) -> None:
        """Before the next read, ask for what this consumer holds pending unknown to it."""
        self._ambiguous = True

    def is_recovering(self) -> bool:
        """Tell whether more may be pending with this consumer than it knows of: it asks, or is going to."""
        return self._ambiguous or self._recovering

    def recover_soon(self) -> None:
        """Do that at once: `recover_when_told` interrupts the read that waits."""
        self._told.set()

    async def recover_when_told(self) -> None:
        """Interrupt reads that wait whenever there is something to recover; until cancelled."""
        while True:
            await self._told.wait()
            self._told.clear()
            self.recover()
            await self._reader.wake()

    async def join(self) -> None:
        """Become known to the group before the first read: others hand over only to those that it knows."""
        for name in self.readable():
            with suppress(ServerError):  # the first read deals with it
                await self._reader.read_pending(self._group, self._consumer, name, after=FIRST_ID, count=1)

    async def stop(self) -> None:
        """Let `run` end; a read that is under way is taken in first."""
        self._stopping = True
        self._changed.set()
        await self._reader.wake()

    async def run(self) -> None:
        """Read until stopped."""
        pause = _FIRST_PAUSE
        while not self._stopping:
            try:
                await self._read_once()
            except BusUnavailable as error:
                self._ambiguous = True
                self._announce_connection(lost=True, error=str(error))
            except GroupNotFoundError:
                await self._rebuild()
            except ServerError as error:
                if not await self._shun():
                    self._announce_connection(lost=True, error=str(error))
            else:
                pause = _FIRST_PAUSE
                self._announce_connection(lost=False)
                continue
            self._rota.forget()
            await self._pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _read_once(self) -> None:
        if self._ambiguous:
            await self._recover()
        names = self.readable()
        if not names:
            await self._pause(BLOCK)
            return
        room = await self._inbox.wait_for_room()
        block = await self._wait_for_turn()
        if self._stopping or self._ambiguous:  # what is found again is older than what a read would bring
            return
        ask = self._rota.next(names, room)
        read = await self._reader.read_group(
            self._group, self._consumer, ask.names, count=ask.each, block=block if ask.waits else 0
        )
        now = self._clock.now()
        for stream, page in read:
            self._take_in(stream, page, now)
        if len(names) > 1:
            self._rota.answered(ask, {stream: len(page) for stream, page in read})

    async def _wait_for_turn(self) -> Seconds:
        """Wait until this worker may read, where its group is ordered; return how long the read may wait.

        Not while there is something to recover: nobody's turn comes before that is done.
        """
        if self._may_read_until is None:
            return BLOCK
        while self._clock.monotonic() + ORDERED_BLOCK > self._may_read_until():
            if self._stopping or self._ambiguous:
                break
            await self._pause(ORDERED_BLOCK / 4)
        return ORDERED_BLOCK

    def _take_in(self, stream: str, page: Page, now: float) -> None:
        self._seen[stream] = page.pairs[-1][0]
        self._inbox.put(stream, receive(stream, self._type_in(stream), page.pairs, now))

    async def _recover(self) -> None:
        """Take in what is pending with this consumer and not held by it.

        A read that broke off delivered it, or a worker that left handed it over.
        """
        self._ambiguous, self._recovering = False, True
        try:
            for stream in self.readable():
                await self._recover_stream(stream)
        except BaseException:
            self._ambiguous = True
            raise
        finally:
            self._recovering = False

    async def _recover_stream(self, stream: str) -> None:
        after = FIRST_ID
        while True:
            page = min(await self._inbox.wait_for_room(), RECOVER_PAGE)
            if self._stopping:
                return
            with self._inbox.remembering() as gone:
                pending = await self._streams.pending(
                    stream, self._group, consumer=self._consumer, after=after, count=page
                )
                if any(self._is_unknown(stream, entry.id, gone) for entry in pending):
                    counts = {entry.id: entry.delivery_count for entry in pending}
                    await self._recover_page(stream, after, counts, gone)
            if len(pending) < page:
                return
            after = pending[-1].id

    def _is_unknown(self, stream: str, entry_id: bytes, gone: set[tuple[str, bytes]]) -> bool:
        return not self._inbox.holds(stream, entry_id) and (stream, entry_id) not in gone

    async def _recover_page(
        self, stream: str, after: bytes, counts: dict[bytes, int], gone: set[tuple[str, bytes]]
    ) -> None:
        entries = await self._reader.read_pending(self._group, self._consumer, stream, after=after, count=len(counts))
        # reading them has raised the counts of all, and was no delivery
        await self._streams.set_delivery_counts(stream, self._group, self._consumer, list(counts.items()))
        unknown = [entry for entry in entries if self._is_unknown(stream, entry.id, gone)]
        deleted = [entry.id for entry in unknown if not entry.fields]
        if deleted:
            await self._streams.ack([(stream, self._group, deleted)])
        found = [entry for entry in unknown if entry.fields]
        received = receive(stream, self._type_in(stream), found, self._clock.now())
        for item in received:
            item.tries = max(1, counts.get(item.id, 1))
        due = received if self._resume is None else await self._resume(stream, received, claimed=False)
        self._inbox.put(stream, due)
        if found:
            self._announcer.announce(Recovered(self._group, stream, len(found)))

    async def _rebuild(self) -> None:
        """Create the group again where it is missing, after the highest checkpoint known; never at the end."""
        for name in self.readable():
            try:
                start = await self._start_of(name)
                (is_new,) = await self._streams.create_groups([(name, self._group, start)])
                if is_new:
                    replayed = await self._streams.count_between(name, start, self._seen.get(name, start), COUNT_LIMIT)
                    self._announcer.announce(GroupRebuilt(self._group, name, start.decode(), replayed))
            except HyperbusError:
                continue  # the next read fails as well, and says why

    async def _shun(self) -> bool:
        """Find the streams that are none, and leave them alone for a while; False if it is not because of them."""
        until = self._clock.monotonic() + SHUN
        found = False
        for name in self.readable():
            try:
                await self._streams.info([name])
            except BusUnavailable:
                return True  # the next read finds out
            except ServerError as error:
                found = True
                self._shunned[name] = until
                _announce_shunned(self._announcer, name, error)
        return found

    def readable(self) -> tuple[str, ...]:
        """Return the streams that are not left alone."""
        if self._shunned:
            now = self._clock.monotonic()
            self._shunned = {name: until for name, until in self._shunned.items() if until > now}
            return tuple(name for name in self._names if name not in self._shunned)
        return self._names

    async def _pause(self, seconds: Seconds) -> None:
        """Wait, but not while something has changed or the worker stops."""
        self._changed.clear()
        if self._stopping:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def _announce_connection(self, *, lost: bool, error: str = "") -> None:
        if lost != self._lost:
            self._lost = lost
            self._announcer.announce(
                ConnectionChanged(f"reader of {self._group}", connected=not lost, error=error, kind="reader")
            )


class CursorReader:
    """Reads for a consumer whose every process sees every event: a position in each stream, and no group.

    It begins after what each stream holds at the start; a stream born later is read from its first entry.
    """

    def __init__(
        self,
        reader: Reader,
        inbox: Inbox,
        announcer: Announcer,
        clock: Clock,
        *,
        name: str,
        type_in: Callable[[str], str],
    ) -> None:
        self._reader = reader
        self._inbox = inbox
        self._announcer = announcer
        self._clock = clock
        self._name = name
        self._type_in = type_in
        self._positions: dict[str, bytes] = {}
        self._shunned: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._lost = False
        self._stopping = False

    async def add_streams(self, positions: dict[str, bytes]) -> None:
        """Read these streams too, after these ids."""
        self._positions = {**positions, **self._positions}
        self._changed.set()
        await self._reader.wake()

    async def stop(self) -> None:
        """Let `run` end."""
        self._stopping = True
        self._changed.set()
        await self._reader.wake()

    async def run(self) -> None:
        """Read until stopped."""
        pause = _FIRST_PAUSE
        while not self._stopping:
            try:
                await self._read_once()
            except ServerError:
                await self._shun()
            except HyperbusError as error:
                self._announce_connection(lost=True, error=str(error))
            else:
                pause = _FIRST_PAUSE
                self._announce_connection(lost=False)
                continue
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _read_once(self) -> None:
        positions = self._readable()
        if not positions:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(BLOCK):
                    await self._changed.wait()
            return
        room = await self._inbox.wait_for_room()
        if self._stopping:
            return
        read = await self._reader.read(positions, count=share(room, len(positions)), block=BLOCK)
        now = self._clock.now()
        for stream, page in read:
            self._take_in(stream, page, now)

    def _readable(self) -> dict[str, bytes]:
        now = self._clock.monotonic()
        return {name: position for name, position in self._positions.items() if self._shunned.get(name, now) <= now}

    async def _shun(self) -> None:
        """Find the streams that the server refuses to read, and leave them alone for a while."""
        for name, position in self._readable().items():
            try:
                await self._reader.read({name: position}, count=1, block=0)
            except BusUnavailable:
                return  # the next read finds out
            except ServerError as error:
                self._shunned[name] = self._clock.monotonic() + SHUN
                _announce_shunned(self._announcer, name, error)

    def _take_in(self, stream: str, page: Page, now: float) -> None:
        self._positions[stream] = page.pairs[-1][0]
        self._inbox.put(stream, receive(stream, self._type_in(stream), page.pairs, now))

    def _announce_connection(self, *, lost: bool, error: str = "") -> None:
        if lost != self._lost:
            self._lost = lost
            self._announcer.announce(
                ConnectionChanged(f"reader of {self._name}", connected=not lost, error=error, kind="reader")
            )


def _announce_shunned(announcer: Announcer, stream: str, error: ServerError) -> None:
    told = f"left alone for {SHUN:.0f} s: {error}"
    announcer.announce(ConnectionChanged(f"stream {stream}", connected=False, error=told, kind="stream"))
