"""Who of a group is dead: whose heartbeat is gone, while this worker may judge."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from hyperbus.clock import Clock, Seconds
from hyperbus.transport import Records, record_names

#: The part of a TTL that an answer may take. After a longer one the living may not have had their chance either.
_STALL = 1 / 3

_Answer = TypeVar("_Answer")


class Liveness:
    """Judges who lives.

    Nobody is dead before this worker has seen the server for one whole TTL without a break: until then the living may
    not have had their chance to say so. A server that took long to answer was away too.
    """

    def __init__(self, records: Records, clock: Clock, ttl: Seconds) -> None:
        self._records = records
        self._clock = clock
        self._ttl = ttl
        self._seen_since = clock.monotonic()

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
        if not consumers or not self.may_judge():
            return set()
        alive = await self.hear(self.alive(consumers))
        if not self.may_judge():
            return set()
        return {consumer for consumer, is_alive in zip(consumers, alive, strict=True) if not is_alive}

    def may_judge(self) -> bool:
        """Tell whether the server has been seen for long enough to declare anybody dead."""
        return self._clock.monotonic() - self._seen_since >= self._ttl

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
