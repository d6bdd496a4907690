"""Entries that may kill their process: kept aside, and let run alone, one at a time."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from hyperbus.clock import Seconds
from hyperbus.errors import HyperbusError
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import Received
from hyperbus.runtime.poison.isolation import Isolation, patience_for
from hyperbus.runtime.poison.start_counts import StartCounts
from hyperbus.signals import SuspectRuns

#: Deaths of a process while an entry ran alone in it, after which the entry is not begun again.
MOST_DEATHS = 2
#: How long to wait until the server is asked again to forget what must not be held against an entry.
_PAUSE: Seconds = 0.5


class PoisonError(HyperbusError):
    """An entry killed the process that handled it, each time it ran alone."""


class Quarantine:
    """Keeps the suspects of one worker aside, so that no lane waits for their sake, and admits one at a time.

    1. A suspect is admitted when no handler runs in the process. It is counted, goes back into the inbox, and the
       lane that takes it there runs it, while `admitted` names it.
    2. One that runs for longer than it may keep others waiting is cleared, and others begin beside it.
    3. Where handlers go on for too long, suspects go back into the inbox and run beside them, uncounted.
    4. They are admitted in any order: else one that takes long, and comes first after each death, could keep the
       guilty one from ever being alone.
    """

    def __init__(self, member: Member, starts: StartCounts, isolation: Isolation, inbox: Inbox) -> None:
        self._member = member
        self._starts = starts
        #: Shared by all workers of the process.
        self.isolation = isolation
        self._inbox = inbox
        self._unbegun = StartCounts.of_unbegun(member)
        self._aside: list[Received] = []
        self._added = asyncio.Event()
        self._ended = asyncio.Event()
        self._taken = False
        #: Whether the worker was told to stop.
        self._closed = False
        #: The suspect that has the process to itself.
        self.admitted: Received | None = None
        #: Entries that were found to be poison, for whoever makes dead letters of them.
        self.judged: asyncio.Queue[tuple[Received, PoisonError]] = asyncio.Queue()

    def add(self, received: Received) -> None:
        """Set a suspect aside; it is not begun before it is admitted."""
        self._aside.append(received)
        self._added.set()

    async def begins(self, received: Received) -> None:
        """Have the server know that an entry is begun which was claimed: it may be what a process dies of."""
        received.begins()
        await self._unbegun.clear(received)  # a server that is away makes it no suspect this time

    def close(self) -> list[Received]:
        """Return, and forget, those that were not admitted; lanes that wait for the end of a window look again."""
        self._closed = True
        left, self._aside = self._aside, []
        if not self._taken:
            self.end_admitted()  # no lane takes it any more
        self.isolation.call()
        return left

    def instead(self, received: Received) -> Received | None:
        """Put an entry back that must not begin now; return the admitted one, once."""
        if received is not self.admitted:
            self._inbox.requeue(received)
            return self.take_admitted()
        self._taken = True
        return received

    def take_admitted(self) -> Received | None:
        """Take the admitted entry, wherever it lies in the inbox; None when there is none, or it was taken."""
        passed: list[Received] = []
        found = None
        while self.admitted is not None and not self._taken and (item := self._inbox.take()) is not None:
            if item is self.admitted:
                self._taken, found = True, item
            else:
                passed.append(item)
        for item in reversed(passed):
            self._inbox.requeue(item)
        return found

    def end_admitted(self) -> None:
        """Hear that the admitted entry was handled."""
        self.admitted = None
        self._ended.set()

    async def run(self) -> None:
        """Admit suspects, one after another, until cancelled."""
        while True:
            while not self._aside:
                self._added.clear()
                await self._added.wait()
            with self.isolation.asking():
                while self._aside:
                    await self._admit_one()

    async def _admit_one(self) -> None:
        async with self.isolation.alone(max(item.delivery_count for item in self._aside)) as alone:
            if alone and self._aside:
                await self._admit(self._aside.pop(random.randrange(len(self._aside))))  # noqa: S311 - an order
            else:
                self._let_all_begin()

    def _let_all_begin(self) -> None:
        aside, self._aside = self._aside, []
        for item in reversed(aside):
            item.cleared()
            self._inbox.requeue(item)

    async def _admit(self, received: Received) -> None:
        judgement: PoisonError | None = None
        self._taken = False
        self._ended.clear()
        try:
            with suppress(HyperbusError):  # it runs uncounted: a death too few is better than one too many
                judgement = await self._judge(received)
            if judgement is not None:
                self.judged.put_nowait((received, judgement))
            else:
                await self._have_run(received)
        except asyncio.CancelledError:
            if not self._may_have_ended_the_process():
                await self._starts.clear(received)
            raise
        cleared = await self._starts.clear(received)
        while not cleared and judgement is None and not self._ended.is_set():
            await self._member.clock.sleep(
                _PAUSE
            )  # others would share the guilt for a death that counts against it alone
            cleared = await self._starts.clear(received)

    def _may_have_ended_the_process(self) -> bool:
        """Tell, when all tasks are cancelled, whether it is for the sake of the entry that runs alone.

        A process can end in good order because of an entry: then that counts as a death. Where the worker was told to
        stop before, its handler was cut off, and has killed nobody.
        """
        return self._taken and not self._ended.is_set() and not self._closed

    async def _judge(self, received: Received) -> PoisonError | None:
        """Count that an entry is begun alone; return the judgement where its process died too often before.

        Raises:
            HyperbusError: the server is away or refuses; it was perhaps counted.
        """
        (begun,) = await self._starts.count(received.stream, [received.id])
        if begun <= MOST_DEATHS:
            return None
        return PoisonError(f"the process died {MOST_DEATHS} times while this entry ran alone in it")

    async def _have_run(self, received: Received) -> None:
        """Let a lane run a suspect; wait for its end, or until it has kept others waiting for too long."""
        received.cleared()
        self.admitted = received
        self._announce(received, alone=True)
        self._inbox.requeue(received)
        self.isolation.call()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_for(received.delivery_count)):
                    await self._ended.wait()
        except asyncio.CancelledError:
            if not self._may_have_ended_the_process():
                self._leave_alone_no_more(received)
            raise
        self._leave_alone_no_more(received)

    def _leave_alone_no_more(self, received: Received) -> None:
        self.admitted = None
        self._announce(received, alone=False)

    def _announce(self, received: Received, *, alone: bool) -> None:
        self._member.announcer.announce(SuspectRuns(self._member.group, received.stream, received.id.decode(), alone))
