"""Keeps deliveries that wait for their next try. Waiting costs no handler slot; the entry stays pending."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import HyperbusError
from hyperbus.runtime.inbox import Received
from hyperbus.transport import Streams


class Retrier:
    """Hands deliveries back when their time has come.

    The count of tries is written to the server before the wait begins, so that a worker that takes over after a
    crash goes on counting. Failing to write it costs a try more and nothing else.
    """

    def __init__(
        self, streams: Streams, group: str, consumer: str, clock: Clock, hand_back: Callable[[Received], None]
    ) -> None:
        self._streams = streams
        self._group = group
        self._consumer = consumer
        self._clock = clock
        self._hand_back = hand_back
        self._heap: list[tuple[float, int, Received]] = []
        self._order = itertools.count()
        self._uncounted: list[Received] = []
        self._changed = asyncio.Event()

    def add(self, received: Received, after: Seconds) -> None:
        """Let a delivery be tried again in `after` seconds."""
        received.tries += 1
        received.alone = True
        self._uncounted.append(received)
        heapq.heappush(self._heap, (self._clock.monotonic() + after, next(self._order), received))
        self._changed.set()

    def waiting(self) -> list[Received]:
        """Return the deliveries whose next try has not come yet."""
        return [received for _, _, received in self._heap]

    async def run(self) -> None:
        """Hand back until cancelled."""
        while True:
            await self._count()
            now = self._clock.monotonic()
            while self._heap and self._heap[0][0] <= now:
                self._hand_back(heapq.heappop(self._heap)[2])
            self._changed.clear()
            if self._uncounted:
                continue
            try:
                async with asyncio.timeout(self._heap[0][0] - now if self._heap else None):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _count(self) -> None:
        by_stream: dict[str, list[tuple[bytes, int]]] = {}
        for received in self._uncounted:
            by_stream.setdefault(received.stream, []).append((received.id, received.tries))
        self._uncounted.clear()
        for stream, counts in by_stream.items():
            try:
                await self._streams.set_delivery_counts(stream, self._group, self._consumer, counts)
            except HyperbusError:
                return
