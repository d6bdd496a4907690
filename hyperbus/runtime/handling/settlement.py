"""How deliveries end: each is judged by itself, and many are passed on and told of together."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import Any

from hyperbus.clock import Clock, Seconds
from hyperbus.declaration.consumer import Declaration
from hyperbus.declaration.outcome import ACKED, Acked, DeadLettered, Outcome, Retried
from hyperbus.error_text import repr_of
from hyperbus.errors import DeclarationError, DecodeError
from hyperbus.event.envelope import Event
from hyperbus.runtime.handling.delivery_stats import DeliveryStats
from hyperbus.runtime.handling.failure_announcer import FailureAnnouncer
from hyperbus.runtime.in_flight.pace import Pace
from hyperbus.runtime.in_flight.received import Received
from hyperbus.runtime.outcomes.guarantees import Guarantee
from hyperbus.runtime.outcomes.retry_or_dead_letter import decide
from hyperbus.signals import Announcer, RetryScheduled

#: How long counts are gathered before they are announced: telling costs as much for one delivery as for a hundred.
TELLING: Seconds = 0.1
#: Deliveries that are announced together, about: nothing else runs while listeners look at them.
MOST_TOLD = 2_000


class Settlement:
    """Turns what handlers returned or raised into outcomes.

    1. Gathers what is done, and passes it on to be acked once a round of the event loop.
    2. Passes on at once what is to be retried, or is given up.
    3. Announces counts every `TELLING` seconds, or every `MOST_TOLD` deliveries.

    Attributes:
        done: deliveries that are to be acked. Who adds the first one calls `soon`.
        seconds: how long each call of the handler took; whoever adds to `done` adds here.
        latencies: and how old each event then was.
        rounds: rises when the event loop has run, if there was something to settle.
        guarantee: what becomes of each delivery.
        clock: tells the time.
        epoch: the wall-clock time at which the monotonic clock stood at 0; looked up once a round.
    """

    def __init__(
        self, declaration: Declaration, guarantee: Guarantee, announcer: Announcer, clock: Clock, pace: Pace
    ) -> None:
        self.done: list[Received] = []
        self._stats = DeliveryStats(announcer, declaration.group)
        self.seconds = self._stats.seconds
        self.latencies = self._stats.latencies
        self.rounds = 0
        self.epoch = clock.now() - clock.monotonic()
        self._untold = 0
        self._declaration = declaration
        self._tries_once = declaration.ack == "received" or declaration.audience == "every_process"
        self.guarantee = guarantee
        self._announcer = announcer
        self.clock = clock
        self._pace = pace
        self._random = random.Random()  # noqa: S311 - jitter
        self._failures = FailureAnnouncer(declaration, announcer)
        self._settling = False
        self._telling: asyncio.TimerHandle | None = None

    # -- what became of deliveries

    def handled(
        self,
        received: Received,
        event: Event[Any],
        born: float,
        failure: BaseException | None,
        seconds: Seconds,
        now: float,
    ) -> bool:
        """Take one that its handler is done with; tell whether it has ended for good.

        Args:
            received: what was handed over.
            event: what it held; its handler may have changed it.
            born: the event's timestamp, in seconds since the epoch.
            failure: what the handler raised.
            seconds: how long it took.
            now: on the monotonic clock.
        """
        if failure is None:
            self.soon()
            self.done.append(received)
            self.seconds.append(seconds)
            self.latencies.append(now + self.epoch - born)
            return True
        self.seconds.append(seconds)
        return self.failed(received, event, failure)

    def handled_batch(
        self,
        batch: Sequence[Received],
        events: Sequence[Event[Any]],
        born: Sequence[float],
        result: tuple[Any, BaseException | None],
        seconds: Seconds,
        now: float,
    ) -> None:
        """Take a batch whose handler returned or raised `result`; see `handled`."""
        returned, failure = result
        self.seconds.append(seconds)
        failures: Sequence[BaseException | None] = ()
        if failure is None and returned is None:
            self.soon()
            self.done += batch
        else:
            failures = failures_of(returned, failure, len(batch))
            outcomes = list(map(self._decide, batch, failures))
            self._failures.announce_all(
                (received, event, one, outcome)
                for received, event, one, outcome in zip(batch, events, failures, outcomes, strict=True)
                if one is not None
            )
            for received, outcome in zip(batch, outcomes, strict=True):
                self._end(received, outcome)
        at = now + self.epoch
        done = born if not failures else [moment for moment, one in zip(born, failures, strict=True) if one is None]
        self.latencies += [at - moment for moment in done]

    def failed(self, received: Received, event: Event[Any], failure: BaseException) -> bool:
        """Take one that failed; tell whether it has ended for good."""
        outcome = self._decide(received, failure)
        self._failures.announce(received, event, failure, outcome)
        self._end(received, outcome)
        return not isinstance(outcome, Retried)

    def undecodable(self, received: Received, error: DecodeError) -> None:
        """Take one that never reached its handler."""
        self._give_up(received, "undecodable", error)

    def poisonous(self, received: Received, error: BaseException) -> None:
        """Take one that kills processes."""
        self._give_up(received, "poison", error)

    # -- together

    def soon(self) -> None:
        """Settle when this task next waits: at once after a handler that is slow, once for many that are not."""
        if not self._settling:
            self._settling = True
            asyncio.get_running_loop().call_soon(self._settle)

    def finish(self) -> None:
        """Pass on and announce what is left."""
        self._settle()
        self._tell()

    def _settle(self) -> None:
        self._settling = False
        self.rounds += 1
        if self.done:
            done = self.done.copy()
            self.done.clear()
            self._untold += len(done)
            self._pace.ended += len(done)
            self._stats.acked.update([received.event_type for received in done])
            self.guarantee.acked(done)
        if self._untold >= MOST_TOLD:
            self._tell()
        elif self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELLING, self._tell)
        self.epoch = self.clock.now() - self.clock.monotonic()

    def _tell(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        self._untold = 0
        self._stats.announce()

    # -- one by one

    def _decide(self, received: Received, failure: BaseException | None) -> Outcome:
        if failure is None:
            return ACKED
        if self._tries_once:
            return ACKED
        policy = self._declaration.policy_for(failure)
        return decide(failure, tries=received.tries, policy=policy, chance=self._random.random)

    def _give_up(self, received: Received, reason: str, error: BaseException) -> None:
        outcome = DeadLettered(reason, error)
        self._failures.announce(received, None, error, outcome)
        self._end(received, outcome)

    def _end(self, received: Received, outcome: Outcome) -> None:
        self.soon()
        if isinstance(outcome, Acked):
            self.done.append(received)
            return
        self._pace.ended += 1
        if isinstance(outcome, Retried):
            self._stats.retried[received.event_type] += 1
            self._announce_retry(received, outcome)
            self.guarantee.retried(received, outcome)
        else:
            self._stats.dead_lettered[received.event_type] += 1
            self.guarantee.dead_lettered(received, outcome)

    def _announce_retry(self, received: Received, outcome: Retried) -> None:
        self._announcer.announce(
            RetryScheduled(
                self._declaration.group,
                received.stream,
                received.id.decode(),
                received.tries,
                outcome.after,
                repr_of(outcome.error),
            )
        )


def failures_of(result: Any, failure: BaseException | None, count: int) -> Sequence[BaseException | None]:
    """Return one failure (None: done) an event of a batch, from what its handler returned or raised."""
    if failure is not None or result is None:
        return [failure] * count
    wrong: BaseException | None = None
    try:  # it is a user's object, which may do anything when it is looked at
        outcomes = list(itertools.islice(result, count + 1))
    except BaseException as error:  # noqa: BLE001 - see above
        outcomes, wrong = [], error
    if len(outcomes) == count and all(one is None or issubclass(type(one), BaseException) for one in outcomes):
        return outcomes
    explained = DeclarationError(
        f"a batch handler returns None, or one outcome an event: None where it is done, else Retry(), Reject() "
        f"or another exception; for {count} events this one returned {repr_of(result, 200)}"
    )
    explained.__cause__ = wrong
    return [explained] * count
