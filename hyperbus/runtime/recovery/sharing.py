"""Giving what a busy worker holds, and will not begin soon, to workers of its group that have nothing to do.

A worker reads no more than it begins soon; what is shared here is what it held all the same when its handlers turned
slow.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import msgspec

from hyperbus.clock import Seconds
from hyperbus.errors import HyperbusError
from hyperbus.runtime.coordination.notifier import Notifier
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.pace import Pace
from hyperbus.runtime.in_flight.pending_doubt import PendingDoubt
from hyperbus.runtime.in_flight.received import Received
from hyperbus.runtime.outcomes.parked_entries import ParkedEntries
from hyperbus.runtime.recovery.handover import HANDED_OVER, Handover

#: The kinds of notices by which a busy worker asks for help, and an idle one offers it.
OVERLOADED = b"overloaded"
IDLE = b"idle"
#: How often a worker looks whether it holds too much. A surplus that is still there at the next look is told of.
LOOK: Seconds = 0.1
#: How much too late a look is when the event loop was blocked.
LATE: Seconds = 0.2
#: How often it looks whether it is idle, while it knows of somebody who asked.
LOOK_OFTEN: Seconds = 0.02
#: How often one who holds too much asks for help.
ASK: Seconds = 0.8
#: How long an asker is remembered: one who becomes idle meanwhile offers help without being asked again.
REMEMBERED: Seconds = 2.5
#: How long a read has to wait for a worker to count as idle.
IDLE_AFTER: Seconds = 0.02
#: How long an offer is given to be taken, before it is made to another asker.
PATIENCE: Seconds = 0.25
#: Idle workers do not all offer at once: those that come later hear that it was done.
JITTER: Seconds = 0.05
#: What an idle worker is given: as much as the giver would begin in this time, and at least one for every free lane.
PORTION: Seconds = 0.25
#: How long it takes, about, until the server knows that parked entries are free for others.
TOLD_AFTER: Seconds = 0.05
#: Askers that are remembered, at most.
MOST_ASKERS = 1_000


class Overloaded(msgspec.Struct, frozen=True):
    """The body of a notice that asks for help: how many entries `sender` would give away."""

    group: str
    sender: str
    entries: int


class Idle(msgspec.Struct, frozen=True):
    """The body of a notice that offers to take so many entries of one asker. To "": ask me."""

    group: str
    sender: str
    to: str
    entries: int


class Asker(msgspec.Struct):
    """Who asked for help: how many entries it has left to give, and until when that is remembered."""

    entries: int
    until: float


class Sharing:
    """Shares one worker's surplus, and takes others' while it is idle. For groups that keep no order.

    1. A busy worker that holds more than it begins soon, at two looks, asks by a notice, and again while that is so.
    2. One that is idle, or becomes so while an asker is remembered, offers to take as many as it has free lanes, and
       twice as many each time that it was done with them at once.
    3. The asker hands over so many, or more where its own are quick. No try is counted.

    While all are quick, or all are idle, nobody says anything.
    """

    def __init__(
        self,
        member: Member,
        inbox: Inbox,
        pace: Pace,
        doubt: PendingDoubt,
        handover: Handover,
        parked: ParkedEntries,
        notifier: Notifier,
    ) -> None:
        self._member = member
        self._inbox = inbox
        self._pace = pace
        self._doubt = doubt
        self._handover = handover
        self._parked = parked
        self._notifier = notifier
        self._monotonic = member.clock.monotonic
        self._changed = asyncio.Event()
        #: What is being handed over.
        self._giving: list[Received] = []
        self._offers: dict[str, int] = {}
        self._had_surplus = False
        self._ask_at = float("-inf")
        self._askers: dict[str, Asker] = {}
        self._offer_at = float("-inf")
        #: Whom help was offered, and is not heard of yet.
        self._offered = ""
        self._is_new = True
        #: When help was last offered, for how many entries, and how many deliveries had ended by then.
        self._offered_at = float("-inf")
        self._portion = self._ended = 0

    def subscribe(self) -> None:
        """Hear of others from now on."""
        self._notifier.subscribe(OVERLOADED, self._hear_overloaded)
        self._notifier.subscribe(IDLE, self._hear_idle)
        self._notifier.subscribe(HANDED_OVER, self._parked.look_soon)

    def unsubscribe(self) -> None:
        """Hear of them no more."""
        self._notifier.unsubscribe(OVERLOADED, self._hear_overloaded)
        self._notifier.unsubscribe(IDLE, self._hear_idle)
        self._notifier.unsubscribe(HANDED_OVER, self._parked.look_soon)

    def unbegun(self) -> list[Received]:
        """Return, and forget, what is just being handed over: whoever leaves gives it away with the rest."""
        giving, self._giving = self._giving, []
        return giving

    async def run(self) -> None:
        """Share until cancelled."""
        while True:
            planned = self._monotonic() + (LOOK_OFTEN if self._askers else LOOK)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, planned - self._monotonic())):
                    await self._changed.wait()
            self._changed.clear()
            stood_still = self._monotonic() - planned > LATE
            with suppress(HyperbusError):  # without the server nothing changes hands; the next look tries again
                await self._give()
                await self._ask(at_once=stood_still)
                await self._offer()

    # -- as one that holds too much

    async def _ask(self, *, at_once: bool) -> None:
        """Ask for help where there is a surplus and was one at the last look, or where the event loop was blocked."""
        surplus, now = self._inbox.surplus(), self._monotonic()
        had, self._had_surplus = self._had_surplus, surplus > 0
        if surplus and (had or at_once) and now >= self._ask_at:
            self._ask_at = now + ASK
            about = Overloaded(self._member.group, self._member.consumer, surplus)
            await self._notifier.notify(OVERLOADED, msgspec.json.encode(about))

    def _hear_idle(self, notice: bytes) -> None:
        """Take an offer to this worker; that one to another asker was made, need not be made again."""
        with suppress(msgspec.MsgspecError, ValueError, RecursionError):  # anybody can write a notice
            offer = msgspec.json.decode(notice, type=Idle)
            me = self._member
            if offer.group != me.group or offer.sender == me.consumer:
                return
            if not offer.to:
                self._ask_at = self._monotonic()
            elif offer.to == me.consumer:
                if self._inbox.surplus() and len(self._offers) < MOST_ASKERS:
                    self._offers[offer.sender] = offer.entries
                    self._changed.set()
            elif (asker := self._askers.get(offer.to)) is not None:
                asker.entries -= offer.entries
                if asker.entries <= 0:
                    del self._askers[offer.to]

    async def _give(self) -> None:
        """Hand over to those who offered help, as far as there is a surplus.

        Raises:
            HyperbusError: the server is away, or refuses.
        """
        while self._offers:
            peer, entries = self._offers.popitem()
            self._giving = self._inbox.take_surplus(max(entries, self._pace.within(PORTION)))
            if not self._giving:
                self._offers.clear()
                return
            try:
                pending = self._parked.give_back(self._giving)
                if len(pending) < len(self._giving):
                    await self._member.clock.sleep(TOLD_AFTER)
                await self._handover.give_to(peer, pending)
            except HyperbusError:
                self._doubt.arise_urgently()  # what is still pending here is found again
                raise
            finally:
                self._inbox.give_up(item for item in self.unbegun() if not item.parked)

    # -- as one that is idle

    def _hear_overloaded(self, notice: bytes) -> None:
        """Remember who asks."""
        with suppress(msgspec.MsgspecError, ValueError, RecursionError):
            asks = msgspec.json.decode(notice, type=Overloaded)
            me, now = self._member, self._monotonic()
            if asks.group != me.group or asks.sender == me.consumer or len(self._askers) >= MOST_ASKERS:
                return
            if not self._askers:
                self._offer_at = max(self._offer_at, now + random.uniform(0.0, JITTER))  # noqa: S311 - not all at once
            self._askers[asks.sender] = Asker(asks.entries, now + REMEMBERED)
            self._changed.set()

    async def _offer(self) -> None:
        """Offer help to an asker while idle; to everybody, once, where this worker has only just come.

        Raises:
            HyperbusError: the server is away, or refuses.
        """
        now = self._monotonic()
        self._askers = {name: asker for name, asker in self._askers.items() if asker.until > now}
        is_idle = self._is_idle(now)
        if self._offered and (not is_idle or self._pace.ended > self._ended):
            self._offered, self._offer_at = "", now  # it was taken
        if not is_idle or now < self._offer_at:
            return
        if self._offered:  # in vain
            self._askers.pop(self._offered, None)
            self._offered = ""
        if self._askers:
            self._offered = next(iter(self._askers))
            self._offer_at = now + PATIENCE
        elif not self._is_new:
            return
        self._is_new = False
        # who was done with the last portion at once gets twice as much
        soon_done = self._pace.ended > self._ended and now - self._offered_at < PORTION
        self._portion = max(self._pace.free(), min(2 * self._portion, self._pace.within(PORTION)) if soon_done else 0)
        self._ended, self._offered_at = self._pace.ended, now
        offer = Idle(self._member.group, self._member.consumer, self._offered, self._portion)
        await self._notifier.notify(IDLE, msgspec.json.encode(offer))

    def _is_idle(self, now: float) -> bool:
        """Tell whether this worker could begin something at once, and its read waits."""
        since = self._inbox.awaited_since
        return since is not None and now - since >= IDLE_AFTER and self._inbox.wanted() > 0 and self._pace.free() > 0
