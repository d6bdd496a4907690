"""Collects what is done, and acks it in batches. Asking twice is safe, so it asks until it is answered."""

from __future__ import annotations

import asyncio

from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, ServerError
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.signals import Acknowledged

#: How far apart acks are sent, unless there are enough of them. A round trip costs as much as handling dozens of
#: events, whether it carries one id or hundreds; and what is handled twice after a crash grows by no more than this.
REST: Seconds = 0.010
#: Ids that are acked at once.
ENOUGH = 250
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class Acker:
    """Acks entries of one group.

    1. Gathers ids while a round trip is under way, and for `REST` since it began; the next one takes them all.
    2. Retries for as long as the server is away; what is gathered is bounded by what the worker holds.
    3. Releases entries only when the server has answered.
    """

    def __init__(self, member: Member, inbox: Inbox, *, prefetch: int) -> None:
        self._member = member
        self._inbox = inbox
        self._gathered: dict[str, list[bytes]] = {}
        self._count = 0
        # A quarter of what may be held: what waits to be acked keeps nobody from reading.
        self._enough = max(1, min(ENOUGH, prefetch // 4))
        self._resting: asyncio.TimerHandle | None = None
        self._wanted = asyncio.Event()
        self._hurried = False
        self._closing = False

    def add(self, stream: str, ids: list[bytes]) -> None:
        """Let entries be acked soon."""
        gathered = self._gathered.get(stream)
        if gathered is None:
            self._gathered[stream] = ids
        else:
            gathered += ids
        self._count += len(ids)
        if self._resting is None or self._hurried or self._count >= self._enough:
            self._wanted.set()

    def hurry(self) -> None:
        """Do not rest before the next ack: somebody waits for it."""
        self._hurried = True
        if self._gathered:
            self._wanted.set()

    def close(self) -> None:
        """Let `run` end once everything that was added is acked."""
        self._closing = True
        self._wanted.set()

    async def run(self) -> None:
        """Ack until closed."""
        try:
            while self._gathered or not self._closing:
                await self._wanted.wait()
                if not self._closing:
                    self._wanted.clear()
                if self._gathered:
                    await self._ack_gathered()
        finally:
            if self._resting is not None:
                self._resting.cancel()

    async def _ack_gathered(self) -> None:
        gathered, self._gathered, self._count = self._gathered, {}, 0
        self._hurried = False
        self._rest()
        if not await self._ack(gathered) and len(gathered) > 1:
            for stream, ids in gathered.items():  # a stream that cannot be acked harms no other
                await self._ack({stream: ids})
        for stream, ids in gathered.items():
            self._inbox.release(stream, ids)

    def _rest(self) -> None:
        if self._resting is None:
            self._resting = asyncio.get_running_loop().call_later(REST, self._rested)

    def _rested(self) -> None:
        self._resting = None
        if self._gathered:
            self._wanted.set()

    async def _ack(self, gathered: dict[str, list[bytes]]) -> bool:
        """Ack; False when the server refuses: a stream is no stream any more, and there is nothing left to ack."""
        member, pause = self._member, _FIRST_PAUSE
        while True:
            try:
                await member.streams.ack([(stream, member.group, ids) for stream, ids in gathered.items()])
                break
            except BusUnavailable:
                await member.clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except ServerError:
                return False
        member.announcer.announce(Acknowledged(member.group, sum(map(len, gathered.values()))))
        return True
