"""Where deliveries go when they have ended: three sets of promises."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from hyperbus.declaration.outcome import DeadLettered, Retried
from hyperbus.errors import BusUnavailable, ServerError
from hyperbus.runtime.coordination.refusals import Refusals, is_final
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import Received, ids_by_stream, owned
from hyperbus.runtime.outcomes.acker import Acker
from hyperbus.runtime.outcomes.dead_letter_writer import DeadLetterWriter
from hyperbus.runtime.outcomes.parked_entries import ParkedEntries
from hyperbus.runtime.outcomes.retry_scheduler import RetryScheduler


class Guarantee(Protocol):
    """What becomes of each delivery, by what a consumer was promised."""

    async def before(self, received: Sequence[Received]) -> None:
        """Prepare: the handler is about to run. Called only where acks come first."""

    def acked(self, received: Sequence[Received]) -> None:
        """Take deliveries that are done."""

    def retried(self, received: Received, outcome: Retried, /) -> None:
        """Take a delivery that is to be tried again."""

    def dead_lettered(self, received: Received, outcome: DeadLettered, /) -> None:
        """Take a delivery that is given up."""


class AtLeastOnce:
    """Acked when the handler is done. An entry is pending or parked, and ends where it is."""

    def __init__(
        self,
        member: Member,
        acker: Acker,
        retries: RetryScheduler,
        dead_letters: DeadLetterWriter,
        parked: ParkedEntries,
    ) -> None:
        self._era = member.era
        self._acker = acker
        self._retries = retries
        self._dead_letters = dead_letters
        self._parked = parked

    async def before(self, received: Sequence[Received]) -> None:
        """Do nothing: the ack comes last."""

    def acked(self, received: Sequence[Received]) -> None:
        """Ack what is pending, finish what is parked."""
        self._acker.add(self._parked.finish(owned(received, self._era)))

    def retried(self, received: Received, outcome: Retried) -> None:
        """Let it wait for its next try."""
        if received.parked:
            self._parked.try_again(received, outcome.after)
        else:
            self._retries.add(received, outcome.after)

    def dead_lettered(self, received: Received, outcome: DeadLettered) -> None:
        """Make it a dead letter."""
        if owned([received], self._era):
            _dead_letter(received, outcome, self._dead_letters, self._parked)


class AtMostOnce:
    """Acked before the handler begins, so that nothing is handled twice."""

    def __init__(self, member: Member, inbox: Inbox, dead_letters: DeadLetterWriter, parked: ParkedEntries) -> None:
        self._member = member
        self._inbox = inbox
        self._dead_letters = dead_letters
        self._parked = parked
        self._refusals = Refusals(member.announcer, f"acks of {member.group}")

    async def before(self, received: Sequence[Received]) -> None:
        """Ack, and wait until the server has it."""
        member = self._member
        acks = [(stream, member.group, ids) for stream, ids in ids_by_stream(received).items()]
        while True:
            try:
                await member.streams.ack(acks)
            except (BusUnavailable, ServerError) as error:
                if is_final(error):
                    return  # the stream is no stream any more: nothing of it is pending, so nothing comes twice
                await asyncio.sleep(self._refusals.failed(error))
            else:
                self._refusals.succeeded()
                return

    def acked(self, received: Sequence[Received]) -> None:
        """Release them; what is parked ends only now."""
        for stream, ids in ids_by_stream(self._parked.finish(received)).items():
            self._inbox.release(stream, ids)

    def retried(self, received: Received, _outcome: Retried, /) -> None:
        """Release it: it is acked, and never tried again."""
        self.acked([received])

    def dead_lettered(self, received: Received, outcome: DeadLettered) -> None:
        """Make it a dead letter: it never reached its handler."""
        _dead_letter(received, outcome, self._dead_letters, self._parked)


class BestEffort:
    """No promises: seen is done."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def before(self, received: Sequence[Received]) -> None:
        """Do nothing: there is no ack."""

    def acked(self, received: Sequence[Received]) -> None:
        """Release them."""
        for stream, ids in ids_by_stream(received).items():
            self._inbox.release(stream, ids)

    def retried(self, received: Received, _outcome: Retried, /) -> None:
        """Release it."""
        self._inbox.release(received.stream, [received.id])

    def dead_lettered(self, received: Received, _outcome: DeadLettered, /) -> None:
        """Release it."""
        self._inbox.release(received.stream, [received.id])


def _dead_letter(
    received: Received, outcome: DeadLettered, dead_letters: DeadLetterWriter, parked: ParkedEntries
) -> None:
    if received.parked:
        parked.dead_letter(received, outcome.reason, outcome.error)
    else:
        dead_letters.add(received, outcome.reason, outcome.error)
