"""What every way of publishing does with a batch: list its streams, append it as asked, announce what became of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from operator import itemgetter
from typing import NamedTuple, TypeGuard

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import BusUnavailable, HyperbusError, NotDurable, PublishUncertain
from hyperbus.signals import Announcer, ConnectionChanged, Published, PublishErred
from hyperbus.transport import Durability, NewEntry, Transport, record_names
from hyperbus.transport.appends import AppendResult, Tell
from hyperbus.transport.births import write_births

#: A stream that is published into is entered in the directory again after this many seconds, should the server forget;
#: and the server is asked again whether it can do what `durability=` asks.
REFRESH: Seconds = 30.0
#: A stream that nobody entered for this long counts as born again: readers of many look less often at quiet ones.
QUIET: Seconds = 2 * REFRESH
#: Streams that were entered lately and are remembered: those of the last `REFRESH` seconds, and no more than this of
#: older ones.
MOST_LISTED = 10_000
FIRST_PAUSE: Seconds = 0.05
LONGEST_PAUSE: Seconds = 1.0
#: What is left of a publish's time when waiting for durability ends: servers look at such waits every 0.1 s.
_TELLING: Seconds = 0.2
#: How much of the window is used for sending again what may be stored: the server's clock is not ours.
_SURE = 0.9


def are_stored(results: list[AppendResult]) -> TypeGuard[list[str]]:
    """Tell whether each of them is an entry id. Quick, as it nearly always is so."""
    return set(map(type, results)) <= {str}


class Mode(NamedTuple):
    """How events are appended."""

    once: bool = False
    durability: Durability | None = None


PLAIN = Mode()


class Appender:
    """Appends batches in the ways there are, with all that is due before and after. Keeps no events."""

    def __init__(
        self, transport: Transport, announcer: Announcer, clock: Clock, *, prefix: str, once_window: Seconds
    ) -> None:
        self._transport = transport
        self._announcer = announcer
        self._clock = clock
        self._prefix = prefix
        self._once_window = once_window
        self._listed: dict[str, float] = {}
        self._most_listed = MOST_LISTED
        self._checked: dict[tuple[int, bool], float] = {}
        # Waiting for durability holds up the connection: who has to queue is not sent yet, and is told so.
        self._durable_lock = asyncio.Lock()
        self._lost = False
        self._last_error = ""

    def exclusive(self, mode: Mode) -> AbstractAsyncContextManager[None]:
        """Return what is held from before `prepare` until `append` is done, so that waits for durability queue here."""
        return nullcontext() if mode.durability is None else self._durable_lock

    async def prepare(self, streams: Iterable[str], mode: Mode) -> HyperbusError | None:
        """Do what is due before entries are sent to `streams`; return why they cannot be sent, now or at all."""
        try:
            if mode.durability is not None:
                await self._check(mode.durability)
            await self._list_streams(streams)
        except HyperbusError as error:
            return error
        return None

    async def append(
        self,
        entries: Iterable[NewEntry],
        ids: Sequence[str],
        mode: Mode,
        deadline: float,
        tell: Tell | None = None,
    ) -> list[AppendResult]:
        """Append entries, made of the events with these ids (needed if `mode` is once); return what became of each.

        `entries` is gone through more than once. `tell` may hear of the first ones before that.
        """
        streams = self._transport.streams
        started = self._clock.monotonic()
        durability = mode.durability
        if durability is not None:
            left = max(0.001, deadline - started)
            durability = replace(durability, timeout=min(durability.timeout, max(left / 2, left - _TELLING)))
        if mode.once:
            pairs = list(zip(entries, ids, strict=True))
            results = await streams.append_once(pairs, window=self._once_window, durability=durability)
        elif durability is not None:
            results = await streams.append(entries, durability=durability)
        else:
            results = await streams.append(entries, tell=tell)
        if results:
            self._announce(entries, results, self._clock.monotonic() - started)
        return results

    def refuse(self, entries: Sequence[NewEntry], error: HyperbusError) -> list[AppendResult]:
        """Return what became of entries that `prepare` had an error for."""
        results: list[AppendResult] = [error] * len(entries)
        if results:
            self._announce(entries, results, 0.0)
        return results

    def may_send_again(self, result: AppendResult, mode: Mode) -> bool:
        """Tell whether an event with this result is to be sent again: it is not stored, or a repeat adds nothing."""
        return isinstance(result, BusUnavailable) or (mode.once and isinstance(result, PublishUncertain))

    def last_repeat(self, deadline: float, sent: float) -> float:
        """Return until when what was sent at the time `sent`, without an answer, may be sent again."""
        return min(deadline, sent + self._once_window * _SURE)

    def unavailable(self, what: str) -> BusUnavailable:
        """Return the error of an event that was not sent."""
        return BusUnavailable(f"{what}; the last error was: {self._last_error or 'none, the server is slow'}")

    def uncertain(self, mode: Mode) -> PublishUncertain:
        """Return the error of an event that was sent, and whose answer did not come in time."""
        advice = ""
        if mode.once:
            advice = f"; the same event, published with once=True within {self._once_window:g} s, is stored once"
        return PublishUncertain(f"no answer in time; the event may be stored or not{advice}")

    async def _list_streams(self, streams: Iterable[str]) -> None:
        """Enter streams in the directory before their first entry, so that globs find them.

        Raises:
            BusUnavailable: the server is away.
        """
        now = self._clock.monotonic()
        due = [stream for stream in streams if self._listed.get(stream, float("-inf")) < now - REFRESH]
        if not due:
            return
        try:
            if await self._transport.records.touch_members(record_names.STREAM_DIRECTORY, due, QUIET):
                # who misses it reads the directory soon after
                await self._transport.streams.append_notice(
                    record_names.notices_key(self._prefix),
                    record_names.STREAM_BORN,
                    write_births(due),
                    keep=record_names.KEPT_NOTICES,
                )
        except BusUnavailable:
            raise
        except HyperbusError:
            return  # a full server refuses; the scan finds them
        self._listed.update(dict.fromkeys(due, now))
        if len(self._listed) > self._most_listed:
            self._listed = {stream: at for stream, at in self._listed.items() if at >= now - REFRESH}
            self._most_listed = max(MOST_LISTED, 2 * len(self._listed))

    async def _check(self, durability: Durability) -> None:
        now = self._clock.monotonic()
        level = (durability.replicas, durability.disk)
        checked = self._checked.get(level)
        if checked is None or checked < now - REFRESH:
            await self._transport.streams.check_durability(durability)
            self._checked[level] = now

    def _announce(self, entries: Iterable[NewEntry], results: list[AppendResult], seconds: Seconds) -> None:
        away: BusUnavailable | None = None
        if are_stored(results):
            self._announce_stored(Counter(map(itemgetter(0), entries)), seconds)
        else:
            # What is stored, and not known to be as safe as was asked for, counts as both.
            failed = [result for result in results if isinstance(result, HyperbusError)]
            streams = [e.stream for e, r in zip(entries, results, strict=True) if isinstance(r, str | NotDurable)]
            self._announce_stored(Counter(streams), seconds)
            for error, count in Counter(type(error).__name__ for error in failed).items():
                self._announcer.announce(PublishErred(count, error))
            away = next((error for error in reversed(failed) if isinstance(error, BusUnavailable)), None)
            if away is not None or any(isinstance(error, PublishUncertain) for error in failed):
                self._checked.clear()  # the next connection may lead to another server
        self._last_error = str(away or "")
        if self._lost != (away is not None):
            self._lost = away is not None
            self._announcer.announce(
                ConnectionChanged("publisher", connected=not self._lost, error=self._last_error, kind="publisher")
            )

    def _announce_stored(self, streams: Counter[str], seconds: Seconds) -> None:
        if streams:
            cut = len(self._prefix) + 1
            counts = {stream[cut:]: count for stream, count in streams.items()}
            self._announcer.announce(Published(counts, seconds))
