"""Gathers what is handled together: as many as a batch may hold, or as many as come while it lingers."""

from __future__ import annotations

import asyncio

from hyperbus.clock import Clock, Seconds
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import Received


class BatchCollector:
    """Collects batches of at most `most` entries, waiting `linger` seconds for one to fill up."""

    def __init__(self, inbox: Inbox, clock: Clock, most: int, linger: Seconds) -> None:
        self._inbox = inbox
        self._monotonic = clock.monotonic
        self._most = most
        self._linger = linger

    async def collect(self, first: Received) -> list[Received]:
        """Return a batch that begins with `first`; a suspect is a batch by itself, so that it harms no neighbours."""
        batch = [first]
        if first.alone:
            return batch
        inbox, most = self._inbox, self._most
        batch += inbox.take_more(most - 1)
        until = self._monotonic() + self._linger
        # without room nothing more can come
        while len(batch) < most and not inbox.waiting and not inbox.closed and inbox.room():
            left = until - self._monotonic()
            if left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    await inbox.wait()
            except TimeoutError:
                break
            batch += inbox.take_more(most - len(batch))
        return batch
