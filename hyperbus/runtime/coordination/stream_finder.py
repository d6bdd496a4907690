"""Finds streams that are born while the process runs, for consumers that declare globs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import HyperbusError
from hyperbus.event.routing import type_in
from hyperbus.transport import Transport, record_names

#: How often the directory of streams is read when no birth is announced.
LOOK: Seconds = 0.5
#: Streams that the directory may hold, and a glob may cover.
MOST_STREAMS = 10_000

#: Told of every event type whose stream was found, by stream key.
Subscriber = Callable[[dict[str, str]], Awaitable[None]]


class StreamFinder:
    """Looks for streams under one prefix and tells each subscriber of those it has not been told of.

    Publishers enter their streams in a directory before the first entry, and give notice of them, upon which
    `look_soon` is called; streams of other programs are found by a scan of the keys, every `scan_interval`.
    """

    def __init__(self, transport: Transport, clock: Clock, *, prefix: str, scan_interval: Seconds) -> None:
        self._transport = transport
        self._clock = clock
        self._prefix = prefix
        self._scan_interval = scan_interval
        self._subscribers: dict[Subscriber, set[str]] = {}
        self._next_scan = 0.0
        self._wanted = asyncio.Event()
        self._look = asyncio.Event()

    async def subscribe(self, subscriber: Subscriber) -> dict[str, str]:
        """Return the event types there are, by stream, and tell `subscriber` of new ones from now on.

        Raises:
            BusUnavailable: the server cannot be reached.
        """
        known = await self._scan() | await self._read_directory()
        self._wanted.set()
        self._subscribers[subscriber] = set(known)
        return known

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Tell `subscriber` of nothing more."""
        self._subscribers.pop(subscriber, None)

    def look_soon(self, _notice: bytes = b"") -> None:
        """Read the directory now: a stream was born."""
        self._look.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._wanted.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._look.wait()
            self._look.clear()
            try:
                known = await self._read_directory()
                if self._clock.monotonic() >= self._next_scan:
                    known |= await self._scan()
            except HyperbusError:
                await self._clock.sleep(LOOK)
                continue  # the readers announce an outage
            for subscriber, told in list(self._subscribers.items()):
                await self._tell(subscriber, told, known)

    async def _tell(self, subscriber: Subscriber, told: set[str], known: dict[str, str]) -> None:
        new = {stream: event_type for stream, event_type in known.items() if stream not in told}
        if not new:
            return
        try:
            await subscriber(new)
        except HyperbusError:
            return  # told again at the next look
        told.update(new)

    async def _read_directory(self) -> dict[str, str]:
        members = await self._transport.records.members(record_names.STREAM_DIRECTORY, count=MOST_STREAMS)
        return self._typed([stream for stream, _ in members])

    async def _scan(self) -> dict[str, str]:
        found = self._typed(await self._transport.streams.scan(f"{self._prefix}:*"))
        self._next_scan = self._clock.monotonic() + self._scan_interval
        return found

    def _typed(self, streams: Sequence[str]) -> dict[str, str]:
        return {
            stream: event_type
            for stream in streams[:MOST_STREAMS]
            if (event_type := type_in(self._prefix, stream)) is not None
        }
