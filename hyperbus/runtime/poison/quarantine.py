"""What is known of entries that may kill their process, when one has its turn, and when one is judged."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import HyperbusError
from hyperbus.runtime.in_flight.inbox import Inbox, Received
from hyperbus.runtime.poison.isolation import Solitude, patience_for
from hyperbus.signals import Announcer, SuspectRuns
from hyperbus.transport import Streams

#: Deaths of a process while an entry ran alone in it, after which the entry is not begun again.
MOST_DEATHS = 2
#: Deliveries up to which an entry is no suspect: its first, and the one after its first worker died.
INNOCENT = 2
#: How long to wait until the server is asked again to forget what must not be held against an entry.
_PAUSE: Seconds = 0.5


class PoisonError(HyperbusError):
    """An entry killed the process that handled it, each time it ran alone."""


class Suspects:
    """Counts, on the server, how often entries of one group were begun alone."""

    def __init__(self, streams: Streams, group: str) -> None:
        self._streams = streams
        self._group = group

    async def begin(self, received: Received) -> PoisonError | None:
        """Count that an entry is begun alone; return the judgement where it died too often before.

        Raises:
            HyperbusError: the server is away or refuses; it was perhaps counted.
        """
        (begun,) = await self._streams.suspect(received.stream, self._group, [received.id])
        if begun <= MOST_DEATHS:
            return None
        return PoisonError(f"the process died {MOST_DEATHS} times while this entry ran alone in it")

    async def clear(self, received: Received) -> bool:
        """Forget an entry that was handled, or judged, and killed nobody; tell whether the server has heard."""
        try:
            await self._streams.clear_suspects(received.stream, self._group, [received.id])
        except HyperbusError:
            return False  # what is left counts against it only if its process dies again, and is forgotten in the end
        return True


class SuspectQueue:
    """Keeps the suspects of one worker aside, so that no lane waits for their sake, and gives each its turn.

    1. A suspect's turn begins when no handler runs in the process. It is counted, goes back into the inbox, and the
       lane that takes it there runs it, while `turn` names it.
    2. One that runs for longer than it may keep others waiting is cleared, and others begin beside it.
    3. Where handlers go on for too long, suspects go back into the inbox and run beside them, uncounted.
    4. They have their turns in any order: else one that takes long, and comes first after each death, could keep the
       guilty one from ever being alone.
    """

    def __init__(
        self,
        suspects: Suspects,
        solitude: Solitude,
        inbox: Inbox,
        clock: Clock,
        announcer: Announcer,
        *,
        group: str,
        judge: Callable[[Received, PoisonError], None],
    ) -> None:
        self._announcer = announcer
        self._group = group
        self._suspects = suspects
        self._solitude = solitude
        self._inbox = inbox
        self._clock = clock
        self._judge = judge
        self._aside: list[Received] = []
        self._added = asyncio.Event()
        self._ended = asyncio.Event()
        self._taken = False
        #: The suspect that has the process to itself.
        self.turn: Received | None = None

    def add(self, received: Received) -> None:
        """Set a suspect aside; it is not begun before its turn."""
        self._aside.append(received)
        self._added.set()

    def close(self) -> list[Received]:
        """Return, and forget, those that had no turn; lanes that wait for the end of a window look again."""
        left, self._aside = self._aside, []
        if not self._taken:
            self.end_turn()  # no lane takes it any more
        self._solitude.call()
        return left

    def instead(self, received: Received) -> Received | None:
        """Put an entry back that must not begin now; return the one whose turn it is, once."""
        if received is not self.turn:
            self._inbox.put_back(received)
            return self.take_turn()
        self._taken = True
        return received

    def take_turn(self) -> Received | None:
        """Take the entry whose turn it is, wherever it lies in the inbox; None when there is none, or it was taken."""
        passed: list[Received] = []
        found = None
        while self.turn is not None and not self._taken and (item := self._inbox.take()) is not None:
            if item is self.turn:
                self._taken, found = True, item
            else:
                passed.append(item)
        for item in reversed(passed):
            self._inbox.put_back(item)
        return found

    def end_turn(self) -> None:
        """Hear that the entry whose turn it is was handled."""
        self.turn = None
        self._ended.set()

    async def run(self) -> None:
        """Give suspects their turns until cancelled."""
        while True:
            while not self._aside:
                self._added.clear()
                await self._added.wait()
            async with self._solitude.alone(max(item.tries for item in self._aside)) as alone:
                if alone and self._aside:
                    await self._give_turn(self._aside.pop(random.randrange(len(self._aside))))  # noqa: S311 - an order
                else:
                    self._let_all_begin()

    def _let_all_begin(self) -> None:
        aside, self._aside = self._aside, []
        for item in reversed(aside):
            item.suspect = False
            self._inbox.put_back(item)

    async def _give_turn(self, received: Received) -> None:
        judgement: PoisonError | None = None
        cleared = False
        try:
            with suppress(HyperbusError):  # it runs uncounted: a death too few is better than one too many
                judgement = await self._suspects.begin(received)
            if judgement is not None:
                self._judge(received, judgement)
            else:
                await self._have_run(received)
        finally:
            cleared = await self._suspects.clear(received)  # a handler that is cut off has killed nobody either
        while not cleared and judgement is None and not self._ended.is_set():
            await self._clock.sleep(_PAUSE)  # others would share the guilt for a death that counts against it alone
            cleared = await self._suspects.clear(received)

    async def _have_run(self, received: Received) -> None:
        """Let a lane run a suspect; wait for its end, or until it has kept others waiting for too long."""
        received.suspect = self._taken = False
        self._ended.clear()
        self.turn = received
        self._announce(received, alone=True)
        self._inbox.put_back(received)
        self._solitude.call()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_for(received.tries)):
                    await self._ended.wait()
        finally:
            self.turn = None
            self._announce(received, alone=False)

    def _announce(self, received: Received, *, alone: bool) -> None:
        self._announcer.announce(SuspectRuns(self._group, received.stream, received.id.decode(), alone))
