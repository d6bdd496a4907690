"""Who of a group is dead: whose heartbeat is gone, while this worker may judge."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from hyperbus.clock import Clock, Seconds
from hyperbus.runtime.coordination.heartbeat import Heartbeat
from hyperbus.transport import Records, record_names

#: The part of a TTL that an answer may take. After a longer one the living may not have had their chance either.
_STALL = 1 / 3
#: Heartbeats that are remembered, at most.
_MOST_WATCHED = 10_000

_Answer = TypeVar("_Answer")


class Liveness:
    """Judges who lives.

    1. Nobody is dead before this worker has seen the server for one whole TTL without a break, and before its own
       heartbeats have got through for as long: until then the living may not have had their chance to say so. A server
       that took long to answer, or refused, was away too.
    2. A heartbeat is gone when the server says so, or when nobody has renewed it for as long as it was to live, by the
       clock here: a server whose clock is set back keeps it for longer.
    3. A server whose clock is set forward ends all heartbeats at once, so that begins a new TTL.
    """

    def __init__(self, records: Records, heartbeat: Heartbeat, clock: Clock, ttl: Seconds) -> None:
        self._records = records
        self._heartbeat = heartbeat
        self._clock = clock
        self._ttl = ttl
        self._seen_since = clock.monotonic()
        #: By how much the server's clock is ahead of the monotonic one here.
        self._ahead: float | None = None
        #: When each heartbeat ends by the server's clock, and when by the one here unless it is renewed.
        self._watched: dict[str, tuple[float, float]] = {}

    async def alive(self, consumers: Sequence[str]) -> list[bool]:
        """Tell of each consumer whether its worker's heartbeat is there.

        Raises:
            BusUnavailable: the server is away.
        """
        found = await self._records.get([record_names.heartbeat(consumer) for consumer in consumers])
        return [value is not None for value in found]

    async def dead(self, consumers: Sequence[str]) -> set[str]:
        """Return those consumers whose workers are dead; none while nobody may be judged.

        Raises:
            BusUnavailable: the server is away.
        """
        if not consumers:
            return set()
        names = [record_names.heartbeat(consumer) for consumer in consumers]
        now, ends = await self.hear(self._records.lifetimes(names))
        self._compare_clocks(now)
        gone = {consumer for consumer, end in zip(consumers, ends, strict=True) if self._is_gone(consumer, end, now)}
        return gone if self.may_judge() else set()

    def may_judge(self) -> bool:
        """Tell whether the server has been seen for long enough to declare anybody dead."""
        return self._clock.monotonic() - max(self._seen_since, self._heartbeat.steady_since()) >= self._ttl

    async def hear(self, answer: Awaitable[_Answer]) -> _Answer:
        """Wait for an answer, and note when it took so long that heartbeats may have run out meanwhile."""
        asked = self._clock.monotonic()
        heard = await answer
        if self._clock.monotonic() - asked > self._ttl * _STALL:
            self.server_was_away()
        return heard

    def server_was_away(self) -> None:
        """Judge nobody for one TTL from now."""
        self._seen_since = self._clock.monotonic()

    def _compare_clocks(self, now: float) -> None:
        before, self._ahead = self._ahead, now - self._clock.monotonic()
        if before is not None and self._ahead - before > self._ttl * _STALL:
            self.server_was_away()

    def _is_gone(self, consumer: str, end: float | None, now: float) -> bool:
        """Tell whether a heartbeat is gone, given when it ends and what time it is, both by the server's clock."""
        if end is None:
            self._watched.pop(consumer, None)
            return True
        here = self._clock.monotonic()
        known = self._watched.get(consumer)
        if known is not None and known[0] == end:
            return here > known[1]
        if len(self._watched) >= _MOST_WATCHED:
            self._watched.clear()
        self._watched[consumer] = (end, here + (end - now) + self._ttl * _STALL)
        return False
