"""Having the process to itself: if it dies while one suspect entry runs alone, the entry is what killed it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from hyperbus.clock import Clock, Seconds

#: How long handlers that run are waited for the first time, and how long suspects may then run one after another.
PATIENCE: Seconds = 30.0
#: The longest that handlers are waited for, and that a suspect stays alone.
LONGEST: Seconds = 960.0
_FIRST_LOOK: Seconds = 0.002
_LAST_LOOK: Seconds = 0.05


def patience_for(tries: int) -> Seconds:
    """Return how long a suspect may keep others waiting: the longer, the more deaths it has been near.

    That is 120 s for the third time that an entry is handed over, and twice as much each further time. So an entry
    that takes long to kill, or is always met by handlers that take long, is found out in the end.
    """
    return min(PATIENCE * 2.0 ** min(max(tries - 1, 2), 10), LONGEST)


class Isolation:
    """Shared by all workers of a process. Time is cut into windows, in which suspects run, and rests.

    1. A window opens when a suspect waits: handlers that run go on, and none begins while isolation is `wanted`.
    2. Once none runs, suspects run one after another, for `PATIENCE` or as long as was waited for that. It stays open
       between them, while anybody has more (`asking`).
    3. A rest follows that is as long as the window was, so that others have at least half of the time.
    4. When handlers go on for longer than is waited, the next window waits twice as long, up to the suspect's
       `patience_for`. Then they count as handlers that may never end: while those run nobody waits for them again,
       and suspects run beside them, uncounted.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._one = asyncio.Lock()
        self._changed = asyncio.Event()
        self._oldest: list[Callable[[], Seconds | None]] = []
        self._asking = 0
        self._opened_at = self._reached_at = 0.0
        self._rest_until = float("-inf")
        #: When handlers had outlasted a suspect, and the patience that it had.
        self._outlasted = (float("-inf"), 0.0)
        #: Whether handlers that are no suspects have to wait before they begin.
        self.wanted = False

    def join(self, oldest: Callable[[], Seconds | None]) -> None:
        """Heed handlers; `oldest` tells for how long the one that began first has been running, None when none runs."""
        self._oldest.append(oldest)

    def leave(self, oldest: Callable[[], Seconds | None]) -> None:
        """Heed them no more."""
        self._oldest.remove(oldest)

    async def over(self) -> None:
        """Wait, if handlers must not begin, until that may have changed."""
        if self.wanted:
            await self._changed.wait()

    def call(self) -> None:
        """Let everybody who waits in `over` look again."""
        self._changed.set()
        self._changed.clear()

    @asynccontextmanager
    async def alone(self, tries: int) -> AsyncGenerator[bool]:
        """Wait until no handler runs, and let none begin meanwhile; yield whether that was reached.

        Args:
            tries: how often the suspect was handed over, this time included.
        """
        with self.asking():
            async with self._one:
                reached = await self._reach(patience_for(tries))
                try:
                    yield reached
                finally:
                    if not reached or self._is_used_up():
                        self._end()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Keep a window open from one suspect to the next: who has several would wait for handlers before each."""
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1
            if not self._asking:
                self._end()

    async def _reach(self, longest: Seconds) -> bool:
        if self.wanted and self._age() is None:
            return True  # the window of the suspect before is still open
        patience = min(PATIENCE, longest)
        while not self._is_outlasted(longest):
            await self._clock.sleep(max(0.0, self._rest_until - self._clock.monotonic()))
            if await self._hold(patience):
                return True
            self._end()
            if patience >= longest:
                self._outlasted = (self._clock.monotonic(), longest)
            patience = min(2 * patience, longest)
        return False

    async def _hold(self, patience: Seconds) -> bool:
        """Let no handler begin, and wait until those that run have ended; tell whether they did."""
        self._opened_at = self._clock.monotonic()
        self.wanted = True
        look = _FIRST_LOOK
        while self._age() is not None:
            if self._clock.monotonic() - self._opened_at >= patience:
                return False
            await self._clock.sleep(look)
            look = min(2 * look, _LAST_LOOK)
        self._reached_at = self._clock.monotonic()
        return True

    def _is_used_up(self) -> bool:
        """Tell whether suspects have had the process for as long as they may at once."""
        waited = self._reached_at - self._opened_at
        return self._clock.monotonic() - self._reached_at >= max(PATIENCE, waited)

    def _is_outlasted(self, longest: Seconds) -> bool:
        """Tell whether a handler runs that was waited for in vain, and with as much patience."""
        moment, patience = self._outlasted
        age = self._age()
        return longest <= patience and age is not None and self._clock.monotonic() - age <= moment

    def _age(self) -> Seconds | None:
        """Return for how long the oldest handler has been running; None when none runs."""
        return max((age for oldest in self._oldest if (age := oldest()) is not None), default=None)

    def _end(self) -> None:
        if self.wanted:
            self.wanted = False
            now = self._clock.monotonic()
            self._rest_until = now + (now - self._opened_at)
            self.call()
