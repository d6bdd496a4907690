"""Running one suspect entry alone in a process: if the process dies then, the entry is what killed it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from hyperbus.clock import Clock, Seconds

#: How long a suspect waits for handlers that run to end. After that it runs beside them, and its death does not count.
PATIENCE: Seconds = 30.0
_LOOK: Seconds = 0.002


class Solitude:
    """Shared by all workers of a process.

    1. Each worker says how many handlers it runs, and begins none while solitude is `wanted`.
    2. One suspect at a time waits until no other handler runs, and has the process to itself.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._one = asyncio.Lock()
        self._over = asyncio.Event()
        self._running: list[Callable[[], int]] = []
        #: Whether handlers that are no suspects have to wait before they begin.
        self.wanted = False

    def join(self, running: Callable[[], int]) -> None:
        """Count the handlers that `running` tells of."""
        self._running.append(running)

    def leave(self, running: Callable[[], int]) -> None:
        """Count them no more."""
        self._running.remove(running)

    async def over(self) -> None:
        """Wait until handlers may begin again."""
        while self.wanted:
            await self._over.wait()

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[bool]:
        """Wait until no handler runs, and let none begin; yield whether that was reached."""
        async with self._one:
            self.wanted = True
            self._over.clear()
            try:
                until = self._clock.monotonic() + PATIENCE
                while (busy := any(running() for running in self._running)) and self._clock.monotonic() < until:
                    await self._clock.sleep(_LOOK)
                yield not busy
            finally:
                self.wanted = False
                self._over.set()
