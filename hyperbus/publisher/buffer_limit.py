"""How many events may wait in a publisher, and how many bytes; whoever comes when it is full waits too."""

from __future__ import annotations

import asyncio

from hyperbus.clock import Clock


class BufferLimit:
    """Counts what waits or is under way. One event always fits, however large."""

    def __init__(self, clock: Clock, most: int, most_bytes: int) -> None:
        self._clock = clock
        self._most = most
        self._most_bytes = most_bytes
        self._count = 0
        self.bytes = 0
        self._freed = asyncio.Condition()
        self._waiting = 0
        self._closed = False

    def try_acquire(self, size: int) -> bool:
        """Take the place of one event of `size` bytes, if it fits."""
        if self._count and (self._count >= self._most or self.bytes + size > self._most_bytes):
            return False
        self._count += 1
        self.bytes += size
        return True

    async def acquire(self, size: int, deadline: float) -> bool:
        """Take the place of one event once it fits; return False when the publisher was closed instead.

        Raises:
            TimeoutError: it did not fit by the deadline.
        """
        self._waiting += 1
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())), self._freed:
                while not self._closed:
                    if self.try_acquire(size):
                        return True
                    await self._freed.wait()
        finally:
            self._waiting -= 1
        return False

    async def release(self, count: int, size: int) -> None:
        """Give back the places of `count` events of `size` bytes together."""
        self._count -= count
        self.bytes -= size
        if self._waiting:
            async with self._freed:
                self._freed.notify_all()

    async def close(self) -> None:
        """Let nobody wait any more."""
        self._closed = True
        async with self._freed:
            self._freed.notify_all()
