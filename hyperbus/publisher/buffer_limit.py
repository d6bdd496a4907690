"""How many events may wait in a publisher, and how many bytes; whoever comes when it is full waits too."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from hyperbus.clock import Clock


class BufferLimit:
    """Counts what waits or is under way. One event always fits, however large.

    Places are given first come, first served: a place that is free wakes the first who waits and nobody else, and as
    many as fit.
    """

    def __init__(self, clock: Clock, most: int, most_bytes: int) -> None:
        self._clock = clock
        self._most = most
        self._most_bytes = most_bytes
        self._count = 0
        self.bytes = 0
        #: Where each who waits is told, with the size of its event; the first is the next. A plain dict looks for its
        #: first item among all that were taken out.
        self._waiters: OrderedDict[asyncio.Future[bool], int] = OrderedDict()
        self._closed = False

    def try_acquire(self, size: int) -> bool:
        """Take the place of one event of `size` bytes, if it fits and nobody waits."""
        count = self._count  # spelled out: a call would be felt in every publish
        if self._waiters or (count and (count >= self._most or self.bytes + size > self._most_bytes)):
            return False
        self._count = count + 1
        self.bytes += size
        return True

    async def acquire(self, size: int, deadline: float) -> bool:
        """Take the place of one event once it fits; return False when the publisher was closed instead.

        Raises:
            TimeoutError: it did not fit by the deadline.
        """
        if self._closed:
            return False
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters[answer] = size
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                return await answer
        except BaseException:
            if answer not in self._waiters and not answer.cancelled() and answer.result():
                self.release(1, size)  # it came too late: the next one has it
            elif self._waiters.pop(answer, None) is not None:
                self._serve()  # it may have been the first, and kept smaller ones waiting
            raise

    def release(self, count: int, size: int) -> None:
        """Give back the places of `count` events of `size` bytes together."""
        self._count -= count
        self.bytes -= size
        if self._waiters:
            self._serve()

    def close(self) -> None:
        """Let nobody wait any more."""
        self._closed = True
        while self._waiters:
            answer, _ = self._waiters.popitem(last=False)
            if not answer.done():
                answer.set_result(False)

    def _serve(self) -> None:
        """Give places to those who wait, in their order, as far as they fit."""
        while self._waiters:
            answer, size = next(iter(self._waiters.items()))
            if not answer.done():  # done: cancelled, and about to take itself out
                if not self._fits(size):
                    return
                self._take(size)
                answer.set_result(True)
            del self._waiters[answer]

    def _fits(self, size: int) -> bool:
        return not self._count or (self._count < self._most and self.bytes + size <= self._most_bytes)

    def _take(self, size: int) -> None:
        self._count += 1
        self.bytes += size
