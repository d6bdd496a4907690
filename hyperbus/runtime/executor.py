"""Runs handlers: long-lived lanes take deliveries, await the handler, and decide how each delivery ends."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Sequence
from typing import Any

from hyperbus.clock import Clock, Seconds
from hyperbus.declaration.consumer import Declaration
from hyperbus.declaration.delivery import Delivery, PublishEvent
from hyperbus.declaration.middleware import Handle
from hyperbus.declaration.outcome import ACKED, Acked, DeadLettered, Outcome, Retried
from hyperbus.declaration.retry_policy import decide
from hyperbus.errors import DecodeError
from hyperbus.event.envelope import Event
from hyperbus.logger import get_logger
from hyperbus.runtime.decoding import EventDecoder
from hyperbus.runtime.endings import Endings
from hyperbus.runtime.handler import failures_of
from hyperbus.runtime.inbox import Inbox, Received
from hyperbus.runtime.key_order import KeyOrder
from hyperbus.runtime.solitude import Solitude
from hyperbus.runtime.suspects import PoisonError, SuspectQueue, Suspects
from hyperbus.runtime.tallies import Tallies
from hyperbus.signals import Announcer, RetryScheduled

#: How long a lane goes on with handlers that never wait, before it lets the rest of the process run.
TURN: Seconds = 0.001


class Executor:
    """Hands deliveries to a handler.

    1. Runs `concurrency` lanes. A lane is one long-lived task, so a handler finds itself in a task; a handler
       that leaves context variables or a cancelled task behind gets its lane replaced: the next one starts clean.
    2. Decodes; what cannot be decoded never reaches the handler.
    3. Turns what the handler returned or raised into an outcome, and passes it on.
    4. Passes on what is done, and announces counts, once a turn of the event loop and not once a delivery.
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
        solitude: Solitude,
        suspects: Suspects,
    ) -> None:
        self._declaration = declaration
        self._solitude = solitude
        self._queue = SuspectQueue(
            suspects, solitude, inbox, clock, announcer, group=declaration.group, judge=self._judge
        )
        #: When each lane's handler began, on the monotonic clock; 0 where none runs.
        self._began = [0.0] * declaration.concurrency
        self._handle = handle
        self._key_of = declaration.key_of if declaration.order_by is not None else None
        self._order = KeyOrder()
        self._wants_delivery = declaration.signature.wants_delivery or bool(declaration.middleware)
        self._acks_first = declaration.ack == "received"
        self._tries_once = self._acks_first or declaration.audience == "every_process"
        self._log = get_logger("hyperbus.runtime")
        self._inbox = inbox
        self._decoder = decoder
        self._endings = endings
        self._publish = publish
        self._announcer = announcer
        self._clock = clock
        self._consumer = consumer
        self._tallies = Tallies(announcer, declaration.group)
        self._random = random.Random()  # noqa: S311 - jitter
        self._context = contextvars.Context()
        self._running: asyncio.Task[Any] | None = None
        self._monotonic = clock.monotonic
        self._done: list[Received] = []
        #: Of deliveries that were handled one by one: how long the handler took, and how old the event then was.
        self._seconds: list[float] = []
        self._latencies: list[float] = []
        self._settling = False
        #: The wall-clock time at which the monotonic clock stood at 0; looked up once a turn.
        self._epoch = clock.now() - clock.monotonic()

    def running(self) -> int:
        """Return how many handlers run now."""
        return sum(map(bool, self._began))

    def oldest_running(self) -> Seconds | None:
        """Return for how long the handler that began first has been running; None when none runs."""
        began = [moment for moment in self._began if moment]
        return self._monotonic() - min(began) if began else None

    async def run(self) -> None:
        """Run every lane until the inbox is closed and what was begun is done."""
        self._context = contextvars.copy_context()
        self._running = asyncio.current_task()
        self._solitude.join(self.oldest_running)
        try:
            async with asyncio.TaskGroup() as parts:
                queue = parts.create_task(self._queue.run(), name=f"hyperbus {self._consumer} suspects")
                async with asyncio.TaskGroup() as lanes:
                    for number in range(self._declaration.concurrency):
                        self._start_lane(lanes, number)
                queue.cancel()
        finally:
            self._solitude.leave(self.oldest_running)
            self._settle()

    def _start_lane(self, lanes: asyncio.TaskGroup, number: int) -> None:
        lanes.create_task(
            self._lane(lanes, number), name=f"hyperbus {self._consumer} lane {number}", context=self._context.copy()
        )

    async def _lane(self, lanes: asyncio.TaskGroup, number: int) -> None:
        inbox, task, context = self._inbox, asyncio.current_task(), contextvars.copy_context
        batch_size, handle_one, monotonic = self._declaration.batch, self._handle_one, self._monotonic
        solitude, queue = self._solitude, self._queue
        assert task is not None
        clean = context()
        turn_ends = monotonic() + TURN
        while not inbox.closed:
            received = inbox.take()
            if received is None:
                await inbox.wait()
                turn_ends = monotonic() + TURN
                continue
            if received.suspect or solitude.wanted:
                received = self._instead(received)
                if received is None:
                    await solitude.over()
                    continue
            if batch_size is None:
                ended = await handle_one(received, number)
            else:
                ended = await self._handle_batch(await self._gather(received, batch_size), number)
            if received is queue.turn:
                queue.end_turn()
            if task.cancelling() or context() != clean:  # next to free: contexts compare by identity first
                if not self._cancelled():
                    self._start_lane(lanes, number)
                return
            if ended >= turn_ends:
                await asyncio.sleep(0)
                turn_ends = monotonic() + TURN

    # -- suspects

    def _instead(self, received: Received) -> Received | None:
        """Put an entry aside that must not begin now; return one that has its turn, if there is one."""
        if not received.suspect:
            return self._queue.instead(received)
        key = self._suspect_key(received)
        if key is None or self._order.begin(key, received):  # before it waits, or its followers overtake it
            self._queue.add(received)
        return self._queue.take_turn()

    async def _leave_alone(self, received: Received) -> None:
        """Wait, with what was taken before a suspect came, for as long as that one is alone."""
        while self._solitude.wanted and received is not self._queue.turn:
            await self._solitude.over()

    def _judge(self, received: Received, judgement: PoisonError) -> None:
        self._end(received, DeadLettered("poison", judgement))
        key = self._suspect_key(received)
        if key is not None:
            self._pass_on(key)

    def _suspect_key(self, received: Received) -> str | None:
        """Return the key of an entry that is not handed over yet; None: it has none, or cannot be read."""
        if self._key_of is None:
            return None
        try:
            return self._key_of(self._decoder.decode(received)[0])
        except Exception:  # noqa: BLE001 - told of when it is handed over
            return None

    def reserve(self, received: Received) -> bool:
        """Give an entry that waits for its next try the turn of its key; False: another has it."""
        key = self._suspect_key(received)
        return key is None or self._order.begin(key, received)

    # -- one event at a time

    async def _handle_one(self, received: Received, number: int) -> float:
        """Hand over one delivery; return when that was over, on the monotonic clock."""
        try:
            event, body = self._decoder.decode(received)
            key = self._key_of(event) if self._key_of is not None else None
        except DecodeError as error:
            self._end(received, DeadLettered("undecodable", error))
            return self._monotonic()
        except Exception as error:  # noqa: BLE001 - a key function is a user's code, and has failed as a handler may
            self._end(received, self._decide(received, error))
            return self._monotonic()
        if key is not None and not self._order.begin(key, received):
            return self._monotonic()
        if self._acks_first:
            await self._endings.before([received])
            await self._leave_alone(received)
        delivery = self._delivery(received, event, body) if self._wants_delivery else None
        failure: BaseException | None = None
        started = self._began[number] = self._monotonic()
        # as `_call` does; this is the one place where a coroutine less is worth the lines
        try:
            await self._handle(event, delivery)
        except asyncio.CancelledError as error:
            if self._cancelled():
                raise
            failure = error
        except Exception as error:  # noqa: BLE001
            failure = error
        ended = self._monotonic()
        self._began[number] = 0.0
        if failure is None:
            if not self._done:
                self._settle_soon()
            self._done.append(received)
            self._seconds.append(ended - started)
            self._latencies.append(ended + self._epoch - event.timestamp.timestamp())
            outcome: Outcome = ACKED
        else:
            self._tallies.of(received.event_type).handler_seconds.append(ended - started)
            outcome = self._decide(received, failure)
            self._end(received, outcome)
        if key is not None and not isinstance(outcome, Retried):
            self._pass_on(key)
        return ended

    def _pass_on(self, key: str) -> None:
        """Let the next delivery of a key begin."""
        following = self._order.end(key)
        if following is not None:
            self._inbox.put_back(following)

    def unbegun(self) -> list[Received]:
        """Return, and forget, suspects that waited for their turn, and deliveries that did for that of their key."""
        return self._queue.close() + self._order.close()

    # -- batches

    async def _gather(self, first: Received, most: int) -> list[Received]:
        """Return a batch that begins with `first`; a suspect is a batch by itself, so that it harms no neighbours."""
        batch = [first]
        if first.alone:
            return batch
        inbox = self._inbox
        batch += inbox.take_more(most - 1)
        until = self._monotonic() + self._declaration.linger
        while len(batch) < most and not inbox.waiting and not inbox.closed:
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

    async def _handle_batch(self, batch: list[Received], number: int) -> float:
        """Hand over a batch; return when that was over, on the monotonic clock."""
        decode = self._decoder.decode
        readable: list[Received] = []
        events: list[Event[Any]] = []
        deliveries: list[Delivery] = []
        for received in batch:
            try:
                event, body = decode(received)
            except DecodeError as error:
                self._end(received, DeadLettered("undecodable", error))
                continue
            readable.append(received)
            events.append(event)
            if self._wants_delivery:
                deliveries.append(self._delivery(received, event, body))
        if not readable:
            return self._monotonic()
        if self._acks_first:
            await self._endings.before(readable)
        await self._leave_alone(batch[0])
        started = self._began[number] = self._monotonic()
        result, failure = await self._call(list(events), deliveries)
        ended = self._monotonic()
        self._began[number] = 0.0
        self._tallies.of(readable[0].event_type).handler_seconds.append(ended - started)
        if failure is None and result is None:
            self._settle_soon()
            self._done += readable
            failures: Sequence[BaseException | None] = ()
        else:
            failures = failures_of(result, failure, len(readable))
            for received, one in zip(readable, failures, strict=True):
                self._end(received, self._decide(received, one))
        now = ended + self._epoch
        for index, event in enumerate(events):
            if not failures or failures[index] is None:
                self._tallies.of(readable[index].event_type).latencies.append(now - event.timestamp.timestamp())
        return ended

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
                entry_id=received.id.decode(),
                error=repr(failure)[:1000],
            )
            return ACKED
        policy = self._declaration.policy_for(failure)
        return decide(failure, tries=received.tries, policy=policy, chance=self._random.random)

    def _end(self, received: Received, outcome: Outcome) -> None:
        tally = self._tallies.of(received.event_type)
        self._settle_soon()
        if isinstance(outcome, Acked):
            self._done.append(received)
        elif isinstance(outcome, Retried):
            tally.retried += 1
            self._announce_retry(received, outcome)
            self._endings.retried(received, outcome)
        else:
            tally.dead_lettered += 1
            self._endings.dead_lettered(received, outcome)

    def _announce_retry(self, received: Received, outcome: Retried) -> None:
        self._announcer.announce(
            RetryScheduled(
                self._declaration.group,
                received.stream,
                received.id.decode(),
                received.tries,
                outcome.after,
                repr(outcome.error)[:1000],
            )
        )

    def _delivery(self, received: Received, event: Event[Any], body: bytes) -> Delivery:
        return Delivery(
            entry_id=received.id.decode(),
            stream=received.stream,
            group=self._declaration.group,
            consumer=self._consumer,
            tries=received.tries,
            body=body,
            event=event,
            publish_event=self._publish,
        )

    def _settle_soon(self) -> None:
        """Settle when this task next waits: at once after a handler that is slow, once for many that are not."""
        if not self._settling:
            self._settling = True
            asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        """Let what is done be acked, and say what happened."""
        self._settling = False
        if self._done:
            done = self._done.copy()
            self._done.clear()
            self._tallies.add([received.event_type for received in done], self._seconds, self._latencies)
            self._seconds.clear()
            self._latencies.clear()
            self._endings.acked(done)
        self._tallies.announce()
        self._epoch = self._clock.now() - self._clock.monotonic()
