"""How fast a worker's handlers get done lately, and so how much of what it might read it would begin soon. Pure."""

from __future__ import annotations

import math
from typing import Protocol

from hyperbus.clock import Clock, Seconds

#: What a worker begins within this time may wait for its handlers; all else is left to other workers.
SOON: Seconds = 0.1
#: What was done longer ago than this counts little.
LATELY: Seconds = 0.1
#: Until it is known better, as many entries may wait as ended so far, times this.
GROWTH = 4
#: A time that is too short to reckon with.
_INSTANT: Seconds = 0.0001


class Lanes(Protocol):
    """The lanes of a worker, as far as its pace needs them."""

    def count(self) -> int:
        """Return how many handlers run now."""
        ...


class Pace:
    """Knows how many deliveries a worker begins soon, by what its handlers took lately.

    1. Only time in which handlers were all that kept entries waiting counts: not that in which there was nothing to do.
    2. While nothing ends, the pace falls: a handler that never returns has none.

    Attributes:
        ended: how many deliveries have ended, however. Who settles them adds here.
        rested: when a lane last found nothing to take, on the monotonic clock. Who hands out writes it.
    """

    def __init__(self, lanes: Lanes, clock: Clock, *, concurrency: int, batch: int = 1) -> None:
        self.ended = 0
        self.rested = self._looked = self._moved = clock.monotonic()
        self.monotonic = clock.monotonic
        self._lanes = lanes
        self._concurrency = concurrency
        self._batch = batch
        self._counted = 0
        self._rate = 0.0
        #: How much of the rate is known by now: it begins at 0, and 1 is all.
        self._known = 0.0

    def free(self) -> int:
        """Return how many deliveries could begin at once."""
        return max(0, self._concurrency - self._lanes.count()) * self._batch

    def within(self, seconds: Seconds) -> int:
        """Return how many deliveries begin in this time, beside those that can at once; none where it is unknown."""
        now = self.monotonic()
        self._look(now)
        if not self._known:
            return 0
        rate, stood = self._rate / self._known, now - self._moved
        if stood > 0:
            rate = min(rate, self._concurrency * self._batch / stood)
        return min(int(rate * seconds), self.ended * GROWTH)

    def resume(self) -> None:
        """Note that entries come after lanes had nothing to do: the time since then says nothing."""
        if self.rested > self._looked:
            self._look(self.rested)
        self._looked = self._moved = self.monotonic()

    def _look(self, now: float) -> None:
        passed = now - self._looked
        if passed < _INSTANT:
            return
        ended, self._counted = self.ended - self._counted, self.ended
        if ended:
            self._moved = now
        old = math.exp(-passed / LATELY)
        self._rate = self._rate * old + ended / passed * (1 - old)
        self._known = self._known * old + (1 - old)
        self._looked = now
