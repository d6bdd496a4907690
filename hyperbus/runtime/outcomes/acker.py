"""Collects what is done, and acks it in batches. Asking twice is safe, so it asks until it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, ServerError
from hyperbus.runtime.coordination.refusals import Refusals, is_final
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import Received, by_stream, ids_by_stream, owned
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

    1. Gathers what is done while a round trip is under way, and for `REST` since it began; the next one takes it all.
    2. Retries for as long as the server is away; what is gathered is bounded by what the worker holds.
    3. Keeps what the server refuses, stream by stream, and asks again at most a second later; other streams go on.
    4. Releases entries only when the server has answered.
    """

    def __init__(self, member: Member, inbox: Inbox, *, prefetch: int) -> None:
        self._member = member
        self._inbox = inbox
        self._gathered: list[Received] = []
        # A quarter of what may be held: what waits to be acked keeps nobody from reading.
        self._enough = max(1, min(ENOUGH, prefetch // 4))
        self._resting: asyncio.TimerHandle | None = None
        self._wanted = asyncio.Event()
        self._hurried = False
        self._closing = False
        self._refusals = Refusals(member.announcer, f"acks of {member.group}")
        #: What the server refuses to ack, by stream, and what asks it again.
        self._refused: dict[str, list[Received]] = {}
        self._asking_again: asyncio.TimerHandle | None = None

    def add(self, received: Iterable[Received]) -> None:
        """Let entries be acked soon."""
        gathered = self._gathered
        gathered += received
        if self._resting is None or self._hurried or len(gathered) >= self._enough:
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
            while self._gathered or self._refused or not self._closing:
                await self._wanted.wait()
                if not self._closing or (self._refused and not self._gathered):
                    self._wanted.clear()
                if self._refused and self._asking_again is None:
                    await self._ask_again()
                if self._gathered:
                    await self._ack_gathered()
        finally:
            for timer in (self._resting, self._asking_again):
                if timer is not None:
                    timer.cancel()

    async def _ack_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._hurried = False
        self._rest()
        if self._refused:
            gathered = self._keep_refused(gathered)
        if gathered:
            await self._ack_or_keep(gathered)

    def _rest(self) -> None:
        if self._resting is None:
            self._resting = asyncio.get_running_loop().call_later(REST, self._rested)

    def _rested(self) -> None:
        self._resting = None
        if self._gathered:
            self._wanted.set()

    async def _ack_or_keep(self, received: Sequence[Received]) -> None:
        """Ack entries, and release them; keep those of streams that are refused."""
        error = await self._ack(received)
        if error is None:
            return
        streams = by_stream(received)
        for stream, items in streams.items():  # a stream that cannot be acked harms no other
            refusal = error if len(streams) == 1 else await self._ack(items)
            if refusal is None:
                continue
            if is_final(refusal):  # there is nothing left to ack
                self._inbox.release(stream, [item.id for item in items])
            else:
                self._refused[stream] = items
                self._ask_later(refusal)

    async def _ack(self, received: Sequence[Received]) -> ServerError | None:
        """Ack entries and release them, and wait for a server that is away; return why it refuses."""
        member, pause = self._member, _FIRST_PAUSE
        while True:
            if member.era.is_over:
                await member.era.begun()
            received = owned(received, member.era)
            acks = ids_by_stream(received)
            if not acks:
                return None
            try:
                await member.streams.ack([(stream, member.group, ids) for stream, ids in acks.items()])
                break
            except BusUnavailable:
                await member.clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except ServerError as error:
                return error
        for stream, ids in acks.items():
            self._inbox.release(stream, ids)
        member.announcer.announce(Acknowledged(member.group, len(received)))
        return None

    # -- what is refused

    def _keep_refused(self, gathered: Sequence[Received]) -> list[Received]:
        """Keep what is of streams that are refused; return the rest."""
        left: list[Received] = []
        for stream, items in by_stream(gathered).items():
            self._refused.get(stream, left).extend(items)
        return left

    def _ask_later(self, refusal: ServerError) -> None:
        if self._asking_again is None:
            pause = self._refusals.failed(refusal)
            self._asking_again = asyncio.get_running_loop().call_later(pause, self._is_time_to_ask)

    def _is_time_to_ask(self) -> None:
        self._asking_again = None
        self._wanted.set()

    async def _ask_again(self) -> None:
        refused, self._refused = self._refused, {}
        await self._ack_or_keep([received for items in refused.values() for received in items])
        if not self._refused:
            self._refusals.succeeded()
