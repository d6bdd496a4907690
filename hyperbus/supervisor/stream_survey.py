"""What the streams of a bus look like now, for whoever scrapes metrics; not asked for too often."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import islice

from hyperbus.bus import Bus
from hyperbus.clock import Clock, Seconds
from hyperbus.errors import HyperbusError
from hyperbus.observability.exposition import MAX_STREAMS, GroupState, StreamStates
from hyperbus.transport import StreamInfo, record_names

#: How old the state of the streams may be when it is shown.
FRESH: Seconds = 1.0
#: How often the whole server is searched for streams that are in no directory, and the share of its time that may take.
SEARCH: Seconds = 30.0
SEARCH_SHARE = 50
#: How long the first look waits for the first search.
_PATIENCE: Seconds = 2.0
#: Members of the directory that are counted; the state of the first `MAX_STREAMS` is asked for.
_COUNTED = 10_000
_PAGE = 200


class StreamSurvey:
    """Feeds `StreamStates`. The directory knows the streams of hyperbus; a search in the background, the others."""

    def __init__(self, bus: Bus, states: StreamStates, clock: Clock) -> None:
        self._bus = bus
        self._states = states
        self._clock = clock
        self._searched: dict[str, None] = {}
        self._was_searched = asyncio.Event()
        self._updated_at = float("-inf")
        self._updating = asyncio.Lock()

    async def search(self) -> None:
        """Search the whole server for streams and dead letters, again and again, until cancelled."""
        streams, prefix = self._bus.transport.streams, self._bus.prefix
        while True:
            began = self._clock.monotonic()
            with suppress(HyperbusError):
                found = [*await streams.scan(f"{prefix}:*"), *await streams.scan(f"{{{prefix}:*")]
                self._searched = dict.fromkeys(found[:_COUNTED])
            self._was_searched.set()
            await self._clock.sleep(max(SEARCH, SEARCH_SHARE * (self._clock.monotonic() - began)))

    async def update(self) -> None:
        """Ask the server for the state of the streams, unless it was asked just now."""
        async with self._updating:
            if self._clock.monotonic() - self._updated_at < FRESH:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._was_searched.wait()
            try:
                await self._ask()
            except HyperbusError:
                self._states.update([])  # what is not known is not shown
            self._updated_at = self._clock.monotonic()

    async def _ask(self) -> None:
        transport = self._bus.transport
        listed = await transport.records.members(record_names.STREAM_DIRECTORY, count=_COUNTED, newest=True)
        names = dict.fromkeys(name for name, _ in listed) | self._searched
        infos: list[StreamInfo | None] = []
        shown = list(islice(names, MAX_STREAMS))
        for start in range(0, len(shown), _PAGE):
            infos += await self._look(shown[start : start + _PAGE])
        pairs = [(info.stream, group.group) for info in infos if info is not None for group in info.groups]
        waiting: dict[tuple[str, str], GroupState] = {}
        for start in range(0, len(pairs), _PAGE):
            page = pairs[start : start + _PAGE]
            counts = [
                await count(page)
                for count in (
                    transport.streams.parked_count,
                    transport.streams.retry_counts,
                    transport.streams.dead_letter_counts,
                )
            ]
            waiting |= {pair: GroupState(*row) for pair, *row in zip(page, *counts, strict=True)}
        self._states.update(infos, waiting, left_out=len(names) - len(shown))

    async def _look(self, names: list[str]) -> list[StreamInfo | None]:
        """Return the state of streams. A key that is none hides no other."""
        try:
            return await self._bus.transport.streams.info(names)
        except HyperbusError:
            found: list[StreamInfo | None] = []
            for name in names:
                with suppress(HyperbusError):
                    found += await self._bus.transport.streams.info([name])
            return found
