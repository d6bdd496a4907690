"""Runs handlers: long-lived lanes take deliveries, await the handler, and decide how each delivery ends."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from hyperbus.clock import Clock, Seconds
from hyperbus.declaration.consumer import Declaration
from hyperbus.declaration.delivery import Delivery, PublishEvent
from hyperbus.errors import DecodeError
from hyperbus.event.envelope import Event
from hyperbus.runtime.handling.decoder import EventDecoder
from hyperbus.runtime.handling.fast_lane import Hands, Turn
from hyperbus.runtime.handling.handler import Handler
from hyperbus.runtime.handling.settlement import Settling
from hyperbus.runtime.in_flight.inbox import Inbox, Received
from hyperbus.runtime.in_flight.key_order import KeyOrder
from hyperbus.runtime.outcomes.guarantees import Endings
from hyperbus.runtime.poison.isolation import Solitude
from hyperbus.runtime.poison.quarantine import PoisonError, SuspectQueue, Suspects
from hyperbus.signals import Announcer


class Executor:
    """Hands deliveries to a handler.

    1. Runs `concurrency` lanes. A lane is one long-lived task, so a handler finds itself in a task; a handler
       that leaves context variables or a cancelled task behind gets its lane replaced: the next one starts clean.
    2. Decodes; what cannot be decoded never reaches the handler.
    3. Passes on what the handler returned or raised.
    """

    def __init__(
        self,
        declaration: Declaration,
        handler: Handler,
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
        self._handle = handler.with_delivery
        self._handle_alone = handler.alone
        self._key_of = declaration.key_of if declaration.order_by is not None else None
        self._order = KeyOrder()
        self._wants_delivery = declaration.signature.wants_delivery or bool(declaration.middleware)
        self._acks_first = declaration.ack == "received"
        #: Whether a handler is given events one by one, in no order, with nothing beside them: see `Hands`.
        self._is_plain = (
            declaration.batch is None and self._key_of is None and not (self._wants_delivery or self._acks_first)
        )
        self._inbox = inbox
        self._decoder = decoder
        self._endings = endings
        self._publish = publish
        self._consumer = consumer
        self._settling = Settling(declaration, endings, announcer, clock)
        self._context = contextvars.Context()
        self._running: asyncio.Task[Any] | None = None
        self._clock = clock
        self._monotonic = clock.monotonic

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
            self._settling.finish()

    def _start_lane(self, lanes: asyncio.TaskGroup, number: int) -> None:
        lanes.create_task(
            self._lane(lanes, number), name=f"hyperbus {self._consumer} lane {number}", context=self._context.copy()
        )

    async def _lane(self, lanes: asyncio.TaskGroup, number: int) -> None:
        inbox, turn, task = self._inbox, Turn(self._settling, self._clock), asyncio.current_task()
        hands = self._hands(number, turn) if self._is_plain else None
        assert task is not None
        clean = contextvars.copy_context()
        while not inbox.closed:
            if hands is not None:
                await hands.run(clean)
            received = inbox.take() if self._is_clean(task, clean) else None
            if received is not None:
                await self._hand_over(received, number)
            if not self._is_clean(task, clean):
                if not self._cancelled():
                    self._start_lane(lanes, number)
                return
            if received is None:
                await inbox.wait()
                turn.begin()
            elif self._monotonic() >= turn.ends:
                await turn.end()

    def _hands(self, number: int, turn: Turn) -> Hands:
        return Hands(
            inbox=self._inbox,
            decoder=self._decoder,
            handle=self._handle_alone,
            settling=self._settling,
            clock=self._clock,
            solitude=self._solitude,
            turn=turn,
            began=self._began,
            lane=number,
            failure_of=self._failure,
        )

    def _is_clean(self, task: asyncio.Task[Any], clean: contextvars.Context) -> bool:
        """Tell whether the last handler left the lane's task as it was."""
        return not task.cancelling() and contextvars.copy_context() == clean

    async def _hand_over(self, received: Received, number: int) -> bool:
        """Hand over a delivery, or a batch that begins with it, or what has to come before it; False: nothing was."""
        if received.suspect or self._solitude.wanted:
            instead = self._instead(received)
            if instead is None:
                await self._solitude.over()
                return False
            received = instead
        if self._declaration.batch is None:
            await self._handle_one(received, number)
        else:
            batch = await self._gather(received, self._declaration.batch)
            if self._solitude.wanted and received is not self._queue.turn and not self._inbox.closed:
                for item in reversed(batch):  # a lane that waits with it would be missing when a suspect has its turn
                    self._inbox.put_back(item)
                return False
            await self._handle_batch(batch, number)
        if received is self._queue.turn:
            self._queue.end_turn()
        return True

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
        self._settling.poisonous(received, judgement)
        key = self._suspect_key(received)
        if key is not None:
            self._pass_on(key)

    def _suspect_key(self, received: Received) -> str | None:
        """Return the key of an entry that is not handed over yet; None: it has none, or cannot be read."""
        if self._key_of is None:
            return None
        try:
            return self._key_of(self._decoder.decode(received))
        except Exception:  # noqa: BLE001 - told of when it is handed over
            return None

    def reserve(self, received: Received) -> bool:
        """Give an entry that waits for its next try the turn of its key; False: another has it."""
        key = self._suspect_key(received)
        return key is None or self._order.begin(key, received)

    # -- one event at a time

    async def _handle_one(self, received: Received, number: int) -> None:
        """Hand over one delivery."""
        try:
            event = self._decoder.decode(received)
            key = self._key_of(event) if self._key_of is not None else None
        except DecodeError as error:
            self._settling.undecodable(received, error)
            return
        except Exception as error:  # noqa: BLE001 - a key function is a user's code, and has failed as a handler may
            self._settling.failed(received, error)
            return
        if key is not None and not self._order.begin(key, received):
            return
        if self._acks_first:
            await self._endings.before([received])
            await self._leave_alone(received)
        delivery = self._delivery(received, event) if self._wants_delivery else None
        started = self._began[number] = self._monotonic()
        _, failure = await self._call(event, delivery)
        ended = self._monotonic()
        self._began[number] = 0.0
        is_over = self._settling.handled(received, event, failure, ended - started, ended)
        if key is not None and is_over:
            self._pass_on(key)

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

    async def _handle_batch(self, batch: list[Received], number: int) -> None:
        """Hand over a batch."""
        events = self._decoder.decode_many(batch)
        if events is None:
            batch, events = self._decode_each(batch)
        if not batch:
            return
        deliveries = list(map(self._delivery, batch, events)) if self._wants_delivery else []
        if self._acks_first:
            await self._endings.before(batch)
        await self._leave_alone(batch[0])
        started = self._began[number] = self._monotonic()
        result = await self._call(list(events), deliveries)
        ended = self._monotonic()
        self._began[number] = 0.0
        self._settling.handled_batch(batch, events, result, ended - started, ended)

    def _decode_each(self, batch: list[Received]) -> tuple[list[Received], list[Event[Any]]]:
        """Return what can be read of a batch, and the events; the rest ends here."""
        readable: list[Received] = []
        events: list[Event[Any]] = []
        for received in batch:
            try:
                events.append(self._decoder.decode(received))
            except DecodeError as error:
                self._settling.undecodable(received, error)
            else:
                readable.append(received)
        return readable, events

    # -- the call

    async def _call(self, event: Any, delivery: Any) -> tuple[Any, BaseException | None]:
        """Await the handler; return what it returned and what it raised. User code may fail, a lane may not."""
        try:
            return await self._handle(event, delivery), None
        except (asyncio.CancelledError, Exception) as error:  # noqa: BLE001
            return None, self._failure(error)

    def _failure(self, error: BaseException) -> BaseException:
        """Return what a handler raised, unless it is that all lanes are to end now.

        Else something inside the handler was cancelled, or the handler cancelled its own task.
        """
        if isinstance(error, asyncio.CancelledError) and self._cancelled():
            raise error
        return error

    def _cancelled(self) -> bool:
        """Tell whether all lanes are to end now, as opposed to one whose handler cancelled its own task."""
        return self._running is not None and self._running.cancelling() > 0

    def _delivery(self, received: Received, event: Event[Any]) -> Delivery:
        return Delivery(
            entry_id=received.id.decode(),
            stream=received.stream,
            group=self._declaration.group,
            consumer=self._consumer,
            tries=received.tries,
            body=self._decoder.body_of(received),
            event=event,
            publish_event=self._publish,
        )
