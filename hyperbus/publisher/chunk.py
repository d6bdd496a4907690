"""A part of a `publish_many`: tried again, until its deadline, where that stores nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from hyperbus.clock import Clock
from hyperbus.errors import BusUnavailable, HyperbusError, PublishUncertain
from hyperbus.event.envelope import Event
from hyperbus.publisher.appender import FIRST_PAUSE, LONGEST_PAUSE, Appender, Mode, Outcome, are_stored
from hyperbus.transport import NewEntry


class Chunk(NamedTuple):
    """Events, the entries that they became, and what became of those that could not be encoded, by their place."""

    events: Sequence[Event[Any]]
    entries: list[NewEntry]
    refused: list[tuple[int, HyperbusError]]


class ChunkSender:
    """Appends chunks in one mode."""

    def __init__(self, appender: Appender, clock: Clock, mode: Mode) -> None:
        self._appender = appender
        self._clock = clock
        self._mode = mode

    async def append(self, chunk: Chunk, deadline: float) -> list[Outcome]:
        """Append what could be encoded; return what became of every event, in order."""
        refused = dict(chunk.refused)
        wanted = self._mode.once
        ids = [event.id for place, event in enumerate(chunk.events) if place not in refused] if wanted else ()
        results = await self._append(chunk.entries, ids, deadline) if chunk.entries else []
        for place, error in chunk.refused:
            results.insert(place, error)
        return results

    async def _append(self, entries: list[NewEntry], ids: Sequence[str], deadline: float) -> list[Outcome]:
        started = self._clock.monotonic()
        results = await self._attempt(entries, ids, deadline)
        left = self._unsettled(results)
        pause = FIRST_PAUSE
        while left:
            if any(isinstance(results[place], PublishUncertain) for place in left):
                deadline = self._appender.last_repeat(deadline, started)
            started = self._clock.monotonic() + pause
            if started >= deadline:
                break
            await self._clock.sleep(pause)
            again = [ids[place] for place in left] if ids else ()
            answers = await self._attempt([entries[place] for place in left], again, deadline)
            for place, answer in zip(left, answers, strict=True):
                # What may be stored by an earlier try stays uncertain when a later one is not even sent.
                if not (isinstance(answer, BusUnavailable) and isinstance(results[place], PublishUncertain)):
                    results[place] = answer
            remaining = self._unsettled(results)
            pause = FIRST_PAUSE if len(remaining) < len(left) else min(pause * 2, LONGEST_PAUSE)
            left = remaining
        return results

    def _unsettled(self, results: list[Outcome]) -> list[int]:
        if are_stored(results):
            return []
        return [place for place, result in enumerate(results) if self._appender.may_send_again(result, self._mode)]

    async def _attempt(self, entries: list[NewEntry], ids: Sequence[str], deadline: float) -> list[Outcome]:
        late: HyperbusError = self._appender.unavailable("the event was not sent in time")
        left = max(0.0, deadline - self._clock.monotonic())
        try:
            async with asyncio.timeout(left), self._appender.turn(self._mode):
                refusal = await self._appender.prepare({entry.stream for entry in entries}, self._mode)
                if refusal is not None:
                    return self._appender.refuse(entries, refusal)
                late = self._appender.uncertain(self._mode)
                return await self._appender.append(entries, ids, self._mode, deadline)
        except TimeoutError:
            return [late] * len(entries)
