"""Collects what is done, and acks it in batches. Asking twice is safe, so it asks until it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from hyperbus.clock import Clock
from hyperbus.errors import BusUnavailable, ServerError
from hyperbus.signals import Acknowledged, Announcer
from hyperbus.transport import Streams

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class Acker:
    """Acks entries of one group.

    1. Gathers ids while a round trip is under way; the next one takes them all.
    2. Retries for as long as the server is away; what is gathered is bounded by what the worker holds.
    3. Lets go of entries only when the server has answered.
    """

    def __init__(
        self,
        streams: Streams,
        group: str,
        announcer: Announcer,
        clock: Clock,
        let_go: Callable[[str, Iterable[bytes]], None],
    ) -> None:
        self._streams = streams
        self._group = group
        self._announcer = announcer
        self._clock = clock
        self._let_go = let_go
        self._gathered: dict[str, list[bytes]] = {}
        self._wanted = asyncio.Event()
        self._closing = False

    def add(self, stream: str, ids: list[bytes]) -> None:
        """Let entries be acked soon."""
        gathered = self._gathered.get(stream)
        if gathered is None:
            self._gathered[stream] = ids
            self._wanted.set()
        else:
            gathered += ids

    def close(self) -> None:
        """Let `run` end once everything that was added is acked."""
        self._closing = True
        self._wanted.set()

    async def run(self) -> None:
        """Ack until closed."""
        while True:
            if not self._gathered:
                if self._closing:
                    return
                self._wanted.clear()
                await self._wanted.wait()
                continue
            gathered, self._gathered = self._gathered, {}
            if not await self._ack(gathered) and len(gathered) > 1:
                for stream, ids in gathered.items():  # a stream that cannot be acked harms no other
                    await self._ack({stream: ids})
            for stream, ids in gathered.items():
                self._let_go(stream, ids)

    async def _ack(self, gathered: dict[str, list[bytes]]) -> bool:
        """Ack; False when the server refuses: a stream is no stream any more, and there is nothing left to ack."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._streams.ack([(stream, self._group, ids) for stream, ids in gathered.items()])
                break
            except BusUnavailable:
                await self._clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except ServerError:
                return False
        self._announcer.announce(Acknowledged(self._group, sum(map(len, gathered.values()))))
        return True
