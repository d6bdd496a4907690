"""Finds streams that are born while the process runs, for consumers that declare globs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import HyperbusError
from hyperbus.event.routing import type_in
from hyperbus.runtime.coordination.refusals import Refusals
from hyperbus.signals import Announcer, BoundReached
from hyperbus.transport import Transport, record_names
from hyperbus.transport.births import read_births

#: How often the directory of streams is looked at for new ones when no birth is announced.
LOOK: Seconds = 0.5
#: Streams that a process knows, and characters of their names; of more, those that were published into last.
MOST_STREAMS = 100_000
MOST_CHARACTERS = 16 * 1024 * 1024
#: How far back the directory is read again: what was entered just before the last look may have come just after it.
_OVERLAP: Seconds = 2.0
#: Members of the directory that are read in one round trip.
_PAGE = 5_000
#: How long a stream that is about to be removed is not found again.
LET_GO: Seconds = 5.0
#: A search of the whole server takes no more than a share of one in so many of its time.
_SCAN_SHARE = 20

#: Told of every event type whose stream was found, by stream key; again where a stream was published into that had been
#: quiet.
Subscriber = Callable[[dict[str, str]], Awaitable[None]]


class StreamFinder:
    """Looks for streams under one prefix and tells each subscriber of those it has not been told of.

    1. Publishers enter their streams in a directory before they publish, and give notice of those that are new, or
       that had been quiet: what a notice names is told at once (`look_soon`).
    2. A notice may be missed: every `LOOK` seconds the youngest part of the directory is read.
    3. Every `scan_interval`, all of it is read, and all keys are searched: streams of other programs are in no
       directory. Streams that are gone are forgotten then, so that they are told anew should they be born again.
    """

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        *,
        prefix: str,
        scan_interval: Seconds,
        announcer: Announcer | None = None,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._prefix = prefix
        self._scan_interval = scan_interval
        self._announcer = announcer or Announcer()
        self._subscribers: dict[Subscriber, set[str]] = {}
        self._named: set[str] = set()
        #: Until when streams that are about to be removed are not found, unless a notice names them.
        self._ended: dict[str, float] = {}
        self._seen_until = float("-inf")
        self._all_at = 0.0
        #: Whether a notice asks for a look at everything: also one that comes while such a look is under way.
        self._everything = False
        self._is_full = False
        self._wanted = asyncio.Event()
        self._look = asyncio.Event()
        self._refusals = Refusals(self._announcer, "finding streams")

    async def subscribe(self, subscriber: Subscriber) -> dict[str, str]:
        """Return the event types there are, by stream, and tell `subscriber` of new ones from now on.

        Raises:
            BusUnavailable: the server cannot be reached.
        """
        known = await self._find_all()
        self._wanted.set()
        self._subscribers[subscriber] = set(known)
        return known

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Tell `subscriber` of nothing more."""
        self._subscribers.pop(subscriber, None)

    def look_soon(self, notice: bytes = b"") -> None:
        """Hear that streams were born: those that the notice names, or some that the directory has."""
        named = read_births(notice)
        if not named or len(self._named) > _PAGE:
            self._everything = True
        else:
            self._named.update(named)
        self._look.set()

    def let_go(self, notice: bytes) -> None:
        """Hear that streams have come to an end, and are about to be removed: if they are born again, that is new."""
        ended = read_births(notice)
        until = self._clock.monotonic() + LET_GO
        self._ended = {name: at for name, at in self._ended.items() if at > until - LET_GO}
        self._ended.update(dict.fromkeys(ended[:_PAGE], until))
        for told in self._subscribers.values():
            told.difference_update(ended)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._wanted.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._look.wait()
            self._look.clear()
            for stream in self._named:
                self._ended.pop(stream, None)
            named, self._named = self._typed(self._named), set()
            if named:
                await self._tell_all(named, again=named.keys())
            is_due = self._everything or self._clock.monotonic() >= self._all_at
            self._everything = False
            try:
                found = await self._find_all() if is_due else await self._find_new()
            except HyperbusError as error:
                self._everything = is_due
                await self._clock.sleep(self._refusals.failed(error))
                continue
            if is_due:
                for told in self._subscribers.values():
                    told.intersection_update(found)
            await self._tell_all(found)

    async def _tell_all(self, found: dict[str, str], again: Iterable[str] = ()) -> None:
        """Tell everyone of what they do not know. One that fails keeps no other from hearing.

        Raises:
            Exception: what one of them raised, if it was no error of hyperbus's.
        """
        unexpected: Exception | None = None
        failure: HyperbusError | None = None
        for subscriber, told in list(self._subscribers.items()):
            new = {stream: event_type for stream, event_type in found.items() if stream not in told or stream in again}
            if not new:
                continue
            try:
                await subscriber(new)
            except HyperbusError as error:
                failure = error  # told again at the next look
            except Exception as error:  # noqa: BLE001 - raised below
                unexpected = error
            else:
                told.update(new)
        if failure is None:
            self._refusals.succeeded()
        else:
            self._refusals.failed(failure)
        if unexpected is not None:
            raise unexpected

    async def _find_new(self) -> dict[str, str]:
        """Return the streams that were entered in the directory since the last look."""
        now = await self._transport.records.server_time()
        found = self._typed(await self._directory(since=self._seen_until - _OVERLAP))
        self._seen_until = now
        return found

    async def _find_all(self) -> dict[str, str]:
        """Return all streams there are, those that were published into last first."""
        began = self._clock.monotonic()
        now = await self._transport.records.server_time()
        listed = await self._directory(since=float("-inf"))
        found = self._typed([*listed, *await self._transport.streams.scan(f"{self._prefix}:*")])
        self._seen_until = now
        ended = self._clock.monotonic()
        self._all_at = ended + max(self._scan_interval, _SCAN_SHARE * (ended - began))
        return found

    async def _directory(self, since: float) -> list[str]:
        found: list[str] = []
        while len(found) <= MOST_STREAMS:
            page = await self._transport.records.members(
                record_names.STREAM_DIRECTORY, minimum=since, count=_PAGE, offset=len(found), newest=True
            )
            found += [stream for stream, _ in page]
            if not page:  # a page may be short: what is no text is left out
                break
        return found

    def _typed(self, streams: Iterable[str]) -> dict[str, str]:
        """Return the event type of each stream that has one, as far as there is room."""
        found: dict[str, str] = {}
        characters = 0
        time = self._clock.monotonic()
        for stream in streams:
            event_type = type_in(self._prefix, stream)
            if event_type is None or stream in found or self._ended.get(stream, time) > time:
                continue
            characters += len(stream)
            if len(found) >= MOST_STREAMS or characters > MOST_CHARACTERS:
                if not self._is_full:
                    self._is_full = True
                    self._announcer.announce(BoundReached("streams that a process knows", len(found)))
                break
            found[stream] = event_type
        return found
