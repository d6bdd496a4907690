"""Runs handlers: long-lived lanes take deliveries, await the handler, and decide how each delivery ends."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from hyperbus.clock import Clock, Seconds
from hyperbus.declaration.consumer import Declaration
from hyperbus.declaration.delivery import Delivery, PublishEvent
from hyperbus.declaration.middleware import Handle
from hyperbus.declaration.outcome import ACKED, Acked, DeadLettered, Outcome, Retried
from hyperbus.declaration.retry_policy import decide
from hyperbus.errors import DeclarationError, DecodeError
from hyperbus.event.envelope import Event
from hyperbus.runtime.decoding import EventDecoder
from hyperbus.runtime.endings import Endings
from hyperbus.runtime.inbox import Inbox, Received
from hyperbus.signals import Announcer, Handled, RetryScheduled

#: Deliveries that a lane handles before it lets the rest of the process run, and counts are announced.
TURN = 100
#: How long counts may wait to be announced.
_TELL: Seconds = 0.5


@dataclass(slots=True)
class _Tally:
    """What happened to deliveries of one type since the last signal."""

    acked: int = 0
    retried: int = 0
    dead_lettered: int = 0
    handler_seconds: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


class Executor:
    """Hands deliveries to a handler.

    1. Runs `concurrency` lanes. A lane is one long-lived task, so a handler finds itself in a task; a handler
       that leaves context variables or a cancelled task behind gets its lane replaced: the next one starts clean.
    2. Decodes; what cannot be decoded never reaches the handler.
    3. Turns what the handler returned or raised into an outcome, and passes it on.
    4. Counts, and announces once a turn.
    """

    def __init__(
        self,
        declaration: Declaration,
        handle: Handle,
        *,
        inbox: Inbox,
        decoder: EventDecoder,
        endings: Endings,
        publish: PublishEvent,
        announcer: Announcer,
        clock: Clock,
        consumer: str,
    ) -> None:
        self._declaration = declaration
        self._handle = handle
        self._wants_delivery = declaration.signature.wants_delivery or bool(declaration.middleware)
        self._acks_first = declaration.ack == "received"
        self._tries_once = self._acks_first or declaration.audience == "every_process"
        self._log = structlog.get_logger("hyperbus.runtime")
        self._inbox = inbox
        self._decoder = decoder
        self._endings = endings
        self._publish = publish
        self._announcer = announcer
        self._clock = clock
        self._consumer = consumer
        self._tallies: dict[str, _Tally] = {}
        self._random = random.Random()  # noqa: S311 - jitter
        self._context = contextvars.Context()
        self._running: asyncio.Task[Any] | None = None
        self._announced_at = clock.monotonic()

    async def run(self) -> None:
        """Run every lane until the inbox is closed and what was begun is done."""
        self._context = contextvars.copy_context()
        self._running = asyncio.current_task()
        try:
            async with asyncio.TaskGroup() as lanes:
                for number in range(self._declaration.concurrency):
                    self._start_lane(lanes, number)
        finally:
            self._announce()

    def _start_lane(self, lanes: asyncio.TaskGroup, number: int) -> None:
        lanes.create_task(
            self._lane(lanes, number), name=f"hyperbus {self._consumer} lane {number}", context=self._context.copy()
        )

    async def _lane(self, lanes: asyncio.TaskGroup, number: int) -> None:
        inbox = self._inbox
        clean = contextvars.copy_context()
        handled = 0
        while not inbox.closed and not self._cancelled():
            received = inbox.take()
            if received is None:
                self._announce()
                handled = 0
                await inbox.wait()
                continue
            if self._declaration.batch is None:
                handled += 1
                await self._handle_one(received)
            else:
                batch = await self._gather(received, self._declaration.batch)
                handled += len(batch)
                await self._handle_batch(batch)
            if _is_dirty() or contextvars.copy_context() != clean:  # next to free when nothing was set
                self._start_lane(lanes, number)
                return
            if handled >= TURN or self._clock.monotonic() - self._announced_at > _TELL:
                handled = 0
                self._announce()
                await asyncio.sleep(0)

    # -- one event at a time

    async def _handle_one(self, received: Received) -> None:
        try:
            event, body = self._decoder.decode(received)
        except DecodeError as error:
            self._end(received, DeadLettered("undecodable", error), None)
            return
        if self._acks_first:
            await self._endings.before([received])
        delivery = self._delivery(received, event, body) if self._wants_delivery else None
        started = self._clock.monotonic()
        _, failure = await self._call(event, delivery)
        self._tally(received.event_type).handler_seconds.append(self._clock.monotonic() - started)
        self._end(received, self._decide(received, failure), event)

    # -- batches

    async def _gather(self, first: Received, most: int) -> list[Received]:
        """Return a batch that begins with `first`; a suspect is a batch by itself, so that it harms no neighbours."""
        batch = [first]
        until = self._clock.monotonic() + self._declaration.linger
        while not first.alone and len(batch) < most:
            following = self._inbox.peek()
            if following is None:
                left = until - self._clock.monotonic()
                if left <= 0 or self._inbox.closed:
                    break
                try:
                    async with asyncio.timeout(left):
                        await self._inbox.wait()
                except TimeoutError:
                    break
                continue
            if following.alone:
                break
            taken = self._inbox.take()
            if taken is not None:
                batch.append(taken)
        return batch

    async def _handle_batch(self, batch: list[Received]) -> None:
        readable: list[Received] = []
        events: list[Event[Any]] = []
        deliveries: list[Delivery] = []
        for received in batch:
            try:
                event, body = self._decoder.decode(received)
            except DecodeError as error:
                self._end(received, DeadLettered("undecodable", error), None)
                continue
            readable.append(received)
            events.append(event)
            if self._wants_delivery:
                deliveries.append(self._delivery(received, event, body))
        if not readable:
            return
        if self._acks_first:
            await self._endings.before(readable)
        started = self._clock.monotonic()
        result, failure = await self._call(list(events), deliveries)
        self._tally(readable[0].event_type).handler_seconds.append(self._clock.monotonic() - started)
        for received, event, one in zip(readable, events, _spread(result, failure, len(readable)), strict=True):
            self._end(received, self._decide(received, one), event)

    # -- the call, and how it ends

    async def _call(self, event: Any, delivery: Any) -> tuple[Any, BaseException | None]:
        """Await the handler; return what it returned and what it raised. User code may fail, a lane may not."""
        try:
            return await self._handle(event, delivery), None
        except asyncio.CancelledError as error:
            if self._cancelled():
                raise
            return None, error  # something inside the handler was cancelled, or the handler cancelled its own task
        except Exception as error:  # noqa: BLE001
            return None, error

    def _cancelled(self) -> bool:
        """Tell whether all lanes are to end now, as opposed to one whose handler cancelled its own task."""
        return self._running is not None and self._running.cancelling() > 0

    def _decide(self, received: Received, failure: BaseException | None) -> Outcome:
        if failure is None:
            return ACKED
        if self._tries_once:
            self._log.error(
                "handler failed; the event is not tried again",
                group=self._declaration.group,
                stream=received.stream,
                entry_id=received.entry.id.decode(),
                error=repr(failure)[:1000],
            )
            return ACKED
        policy = self._declaration.retry
        return decide(failure, tries=received.tries, policy=policy, chance=self._random.random)

    def _end(self, received: Received, outcome: Outcome, event: Event[Any] | None) -> None:
        tally = self._tally(received.event_type)
        if isinstance(outcome, Acked):
            tally.acked += 1
            if event is not None:
                tally.latencies.append(self._clock.now() - event.timestamp.timestamp())
            self._endings.acked(received)
        elif isinstance(outcome, Retried):
            tally.retried += 1
            self._announcer.announce(
                RetryScheduled(
                    self._declaration.group,
                    received.stream,
                    received.entry.id.decode(),
                    received.tries,
                    outcome.after,
                    repr(outcome.error)[:1000],
                )
            )
            self._endings.retried(received, outcome)
        else:
            tally.dead_lettered += 1
            self._endings.dead_lettered(received, outcome)

    def _delivery(self, received: Received, event: Event[Any], body: bytes) -> Delivery:
        return Delivery(
            entry_id=received.entry.id.decode(),
            stream=received.stream,
            group=self._declaration.group,
            consumer=self._consumer,
            tries=received.tries,
            body=body,
            event=event,
            publish_event=self._publish,
        )

    def _tally(self, event_type: str) -> _Tally:
        tally = self._tallies.get(event_type)
        if tally is None:
            tally = self._tallies[event_type] = _Tally()
        return tally

    def _announce(self) -> None:
        tallies, self._tallies = self._tallies, {}
        self._announced_at = self._clock.monotonic()
        for event_type, tally in tallies.items():
            self._announcer.announce(
                Handled(
                    self._declaration.group,
                    event_type,
                    tally.acked,
                    tally.retried,
                    tally.dead_lettered,
                    tally.handler_seconds,
                    tally.latencies,
                )
            )


def _is_dirty() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _spread(result: Any, failure: BaseException | None, count: int) -> Sequence[BaseException | None]:
    """Return one failure (None: done) an event of a batch, from what its handler returned or raised."""
    if failure is not None or result is None:
        return [failure] * count
    try:
        outcomes = list(result)
    except TypeError:
        outcomes = []
    if len(outcomes) != count or not all(one is None or isinstance(one, BaseException) for one in outcomes):
        wrong = DeclarationError(
            f"a batch handler returns None, or one outcome an event: None where it is done, else Retry(), Reject() "
            f"or another exception; for {count} events this one returned {result!r:.200}"
        )
        return [wrong] * count
    return outcomes
