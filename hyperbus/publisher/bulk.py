"""A part of a `publish_many`: tried again, until its deadline, where that stores nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from hyperbus.clock import Clock
from hyperbus.errors import BusUnavailable, HyperbusError, PublishUncertain
from hyperbus.event.envelope import Event, Publishable, complete
from hyperbus.publisher.appender import FIRST_PAUSE, LONGEST_PAUSE, Appender, Mode, are_stored
from hyperbus.publisher.encoder import Encoder
from hyperbus.transport import NewEntry
from hyperbus.transport.appends import FIRST_PIECE, PIECE, AppendResult


class Bulk:
    """Events of a `publish_many`, made entries when somebody asks: the first are on their way before the last are made.

    Args:
        events: what to publish.
        types: the event type of each.
        encoder: writes them.
        own_agent: the `source_agent` of those that have none.

    Attributes:
        streams: where they go; without those of events that cannot be published.
        refused: what became of those that could not be encoded, by their place; whole once all were asked for.
    """

    def __init__(
        self, events: Sequence[Publishable], types: Sequence[str], encoder: Encoder, own_agent: str | None
    ) -> None:
        self._events = events
        self._types = types
        self._encoder = encoder
        self._own_agent = own_agent
        self._whole: list[Event[Any]] = []
        self._entries: list[NewEntry] = []
        self.streams = encoder.streams_of(types)
        self.refused: list[tuple[int, HyperbusError]] = []

    def __iter__(self) -> Iterator[NewEntry]:
        """Return the entries, in order; those that are not made yet are made on the way."""
        return chain.from_iterable(self._pieces())

    def entries(self) -> list[NewEntry]:
        """Return all entries."""
        for _ in self._pieces():
            pass
        return self._entries

    def ids(self) -> list[str]:
        """Return the ids of the events behind the entries."""
        self.entries()
        refused = {place for place, _ in self.refused}
        return [event.id for place, event in enumerate(self._whole) if place not in refused]

    def _pieces(self) -> Iterator[list[NewEntry]]:
        yield self._entries.copy()
        while (start := len(self._whole)) < len(self._events):
            end = start + (PIECE if start else FIRST_PIECE)
            whole = [complete(what, own_agent=self._own_agent) for what in self._events[start:end]]
            self._whole += whole
            entries, refused = self._encoder.encode_many(whole, self._types[start:end])
            self._entries += entries
            self.refused += [(start + place, error) for place, error in refused]
            yield entries


class BulkSender:
    """Appends bulks in one mode."""

    def __init__(self, appender: Appender, clock: Clock, mode: Mode) -> None:
        self._appender = appender
        self._clock = clock
        self._mode = mode

    async def append(self, bulk: Bulk, deadline: float) -> list[AppendResult]:
        """Append what can be encoded; return what became of every event, in order."""
        results = await self._append(bulk, deadline)
        for place, error in bulk.refused:
            results.insert(place, error)
        return results

    async def _append(self, bulk: Bulk, deadline: float) -> list[AppendResult]:
        ids = bulk.ids() if self._mode.once else ()
        started = self._clock.monotonic()
        results = await self._attempt(bulk, bulk.streams, ids, deadline)
        left = self._unsettled(results)
        pause = FIRST_PAUSE
        while left:
            if any(isinstance(results[place], PublishUncertain) for place in left):
                deadline = self._appender.last_repeat(deadline, started)
            started = self._clock.monotonic() + pause
            if started >= deadline:
                break
            await self._clock.sleep(pause)
            entries = bulk.entries()
            again = [ids[place] for place in left] if ids else ()
            answers = await self._attempt([entries[place] for place in left], bulk.streams, again, deadline)
            for place, answer in zip(left, answers, strict=True):
                # What may be stored by an earlier try stays uncertain when a later one is not even sent.
                if not (isinstance(answer, BusUnavailable) and isinstance(results[place], PublishUncertain)):
                    results[place] = answer
            remaining = self._unsettled(results)
            pause = FIRST_PAUSE if len(remaining) < len(left) else min(pause * 2, LONGEST_PAUSE)
            left = remaining
        return results

    def _unsettled(self, results: list[AppendResult]) -> list[int]:
        if are_stored(results):
            return []
        return [place for place, result in enumerate(results) if self._appender.may_send_again(result, self._mode)]

    async def _attempt(
        self, entries: Bulk | list[NewEntry], streams: set[str], ids: Sequence[str], deadline: float
    ) -> list[AppendResult]:
        late: HyperbusError = self._appender.unavailable("the event was not sent in time")
        left = max(0.0, deadline - self._clock.monotonic())
        try:
            async with asyncio.timeout(left), self._appender.exclusive(self._mode):
                refusal = await self._appender.prepare(streams, self._mode)
                if refusal is not None:
                    return self._appender.refuse(list(entries), refusal)
                late = self._appender.uncertain(self._mode)
                return await self._appender.append(entries, ids, self._mode, deadline)
        except TimeoutError:
            return [late] * len(list(entries))
