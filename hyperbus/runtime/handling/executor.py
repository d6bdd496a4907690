"""Runs handlers: long-lived lanes take deliveries, await the handler, and pass on how each delivery ended."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from hyperbus.errors import DecodeError
from hyperbus.event.envelope import Event
from hyperbus.runtime.handling.batch_collector import BatchCollector
from hyperbus.runtime.handling.deliveries import Deliveries
from hyperbus.runtime.handling.fast_lane import FastLane, TimeSlice
from hyperbus.runtime.handling.handler import Handler, whole
from hyperbus.runtime.handling.running_handlers import RunningHandlers
from hyperbus.runtime.handling.settlement import Settlement
from hyperbus.runtime.in_flight.decoder import EventDecoder
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.key_order import KeyOrder
from hyperbus.runtime.in_flight.received import Received
from hyperbus.runtime.poison.quarantine import PoisonError, Quarantine


class Executor:
    """Hands deliveries to a handler.

    1. Runs `concurrency` lanes. A lane is one long-lived task, so a handler finds itself in a task; a handler
       that leaves context variables or a cancelled task behind gets its lane replaced: the next one starts clean.
    2. Keeps suspects aside until they may run alone, and events of one key in order.
    3. Decodes; what cannot be decoded never reaches the handler.
    4. Passes on what the handler returned or raised.
    """

    def __init__(
        self,
        handler: Handler,
        running: RunningHandlers,
        inbox: Inbox,
        decoder: EventDecoder,
        deliveries: Deliveries,
        settlement: Settlement,
        quarantine: Quarantine,
        order: KeyOrder | None,
    ) -> None:
        declaration = handler.declaration
        self._declaration = declaration
        self._handler = handler
        self._running = running
        self._inbox = inbox
        self._decoder = decoder
        self._deliveries = deliveries
        self._settlement = settlement
        self._quarantine = quarantine
        self._isolation = quarantine.isolation
        self._order = order
        self._clock = settlement.clock
        self._batches = (
            BatchCollector(inbox, self._clock, declaration.batch, declaration.linger) if declaration.batch else None
        )
        self._wants_delivery = declaration.signature.wants_delivery or bool(declaration.middleware)
        self._acks_first = declaration.ack == "received"
        #: Whether a handler is given events one by one, in no order, with nothing beside them: see `FastLane`.
        self._is_plain = self._batches is None and order is None and not (self._wants_delivery or self._acks_first)
        self._context = contextvars.copy_context()

    # -- lanes

    async def run(self) -> None:
        """Run every lane until the inbox is closed and what was begun is done."""
        self._running.run_in(asyncio.current_task())
        self._isolation.join(self._running.oldest)
        try:
            async with asyncio.TaskGroup() as parts:
                helpers = [
                    parts.create_task(self._quarantine.run(), name=f"hyperbus {self._declaration.name} quarantine"),
                    parts.create_task(self._judge(), name=f"hyperbus {self._declaration.name} judged"),
                ]
                async with asyncio.TaskGroup() as lanes:
                    for number in range(self._declaration.concurrency):
                        self._start_lane(lanes, number)
                for helper in helpers:
                    helper.cancel()
            while not self._quarantine.judged.empty():
                self._give_up(*self._quarantine.judged.get_nowait())
        finally:
            self._isolation.leave(self._running.oldest)
            self._settlement.finish()

    def _start_lane(self, lanes: asyncio.TaskGroup, number: int) -> None:
        name = f"hyperbus {self._declaration.name} lane {number}"
        lanes.create_task(self._lane(lanes, number), name=name, context=self._context.copy())

    async def _lane(self, lanes: asyncio.TaskGroup, number: int) -> None:
        inbox, time_slice, task = (
            self._inbox,
            TimeSlice(self._settlement, self._inbox, self._clock),
            asyncio.current_task(),
        )
        fast = self._fast_lane(number, time_slice) if self._is_plain else None
        assert task is not None
        clean = contextvars.copy_context()
        while not inbox.closed:
            if fast is not None:
                await fast.run(clean)
            received = inbox.take() if self._is_clean(task, clean) else None
            if received is not None:
                await self._dispatch(received, number)
            if not self._is_clean(task, clean):
                if not self._running.cut_off():
                    self._start_lane(lanes, number)
                return
            if received is None:
                await inbox.wait()
                time_slice.begin()
            elif self._running.monotonic() >= time_slice.ends:
                await time_slice.end()

    def _fast_lane(self, number: int, time_slice: TimeSlice) -> FastLane:
        return FastLane(
            self._handler, self._running, self._inbox, self._decoder, self._settlement, self._isolation, time_slice,
            number,
        )  # fmt: skip

    async def _dispatch(self, received: Received, number: int) -> None:
        """Begin with an entry that was taken, or with what has to come before it."""
        if received.suspect or self._isolation.wanted:
            admitted = self._admitted_instead(received)
            if admitted is None:
                await self._isolation.over()
                return
            received = admitted
        if self._batches is None:
            await self._handle_one(received, number)
        elif not await self._handle_batch_from(received, self._batches, number):
            return
        if received is self._quarantine.admitted and not self._running.cut_off():
            self._quarantine.end_admitted()

    # -- suspects

    def _admitted_instead(self, received: Received) -> Received | None:
        """Put an entry aside that must not begin now; return the suspect that may, if there is one."""
        if not received.suspect:
            return self._quarantine.instead(received)
        # its place in the order is reserved before it waits, or its followers overtake it
        if self._order is None or self._order.reserve(received):
            self._quarantine.add(received)
        return self._quarantine.take_admitted()

    async def _leave_alone(self, received: Received) -> None:
        """Wait, with what was taken before a suspect came, for as long as that one is alone."""
        while self._isolation.wanted and received is not self._quarantine.admitted:
            await self._isolation.over()

    def _must_wait(self, received: Received) -> bool:
        """Tell whether a suspect came first, while a lane waited with an entry in its hands."""
        return self._isolation.wanted and received is not self._quarantine.admitted and not self._inbox.closed

    async def _judge(self) -> None:
        """Give up what was found to be poison, until cancelled."""
        while True:
            self._give_up(*await self._quarantine.judged.get())

    def _give_up(self, received: Received, judgement: PoisonError) -> None:
        self._settlement.poisonous(received, judgement)
        key = self._order.key_of_undecoded(received) if self._order is not None else None
        if key is not None:
            self._begin_following(key)

    def unbegun(self) -> list[Received]:
        """Return, and forget, suspects that were not admitted, and what waited behind another of its key."""
        return self._quarantine.close() + (self._order.close() if self._order is not None else [])

    # -- one event at a time

    async def _handle_one(self, received: Received, number: int) -> None:
        """Hand over one delivery."""
        try:
            event = self._decoder.decode(received)
        except DecodeError as error:
            self._settlement.undecodable(received, error)
            self._end_key_held_by(received)
            return
        try:
            key = self._order.key_of(event) if self._order is not None else None
        except BaseException as error:  # noqa: BLE001 - a key function is a user's code, and has failed as a handler may
            if self._settlement.failed(received, event, self._running.failure(error)):
                self._end_key_held_by(received)
            return
        if key is not None and self._order is not None and not self._order.begin(key, received):
            return
        if received.unbegun and self._order is not None:
            await self._quarantine.begins(received)
            if self._must_wait(received):
                self._inbox.requeue(received)
                return
        if self._acks_first:
            await self._settlement.guarantee.before([received])
            await self._leave_alone(received)
        delivery = self._deliveries.of(received, event) if self._wants_delivery else None
        monotonic, began, born = self._running.monotonic, self._running.began, event.timestamp.timestamp()
        started = began[number] = monotonic()
        _, failure = await self._call(event, delivery)
        ended = monotonic()
        began[number] = 0.0
        is_over = self._settlement.handled(received, event, born, failure, ended - started, ended)
        if key is not None and is_over:
            self._begin_following(key)

    def _end_key_held_by(self, received: Received) -> None:
        """Let those go on that wait behind a delivery which ended without a key: an earlier try of it had one."""
        key = self._order.key_held_by(received) if self._order is not None else None
        if key is not None:
            self._begin_following(key)

    def _begin_following(self, key: str) -> None:
        """Let the next delivery of a key begin."""
        following = self._order.end(key) if self._order is not None else None
        if following is None:
            return
        if following.suspect:  # its place is kept; on the way through the inbox the window would end before it
            self._quarantine.add(following)
        else:
            self._inbox.requeue(following)

    # -- batches

    async def _handle_batch_from(self, received: Received, batches: BatchCollector, number: int) -> bool:
        """Gather a batch and hand it over; False: a suspect came first, and what was gathered waits."""
        batch = await batches.collect(received)
        if self._must_wait(received):
            for item in reversed(batch):  # a lane that waits with it would be missing when a suspect is admitted
                self._inbox.requeue(item)
            return False
        await self._handle_batch(batch, number)
        return True

    async def _handle_batch(self, batch: list[Received], number: int) -> None:
        """Hand over a batch."""
        events = self._decoder.decode_many(batch)
        if events is None:
            batch, events = self._decode_each(batch)
        if not batch:
            return
        deliveries = list(map(self._deliveries.of, batch, events)) if self._wants_delivery else []
        if self._acks_first:
            await self._settlement.guarantee.before(batch)
        await self._leave_alone(batch[0])
        born = [event.timestamp.timestamp() for event in events]  # before the handler has them, which may change them
        monotonic, began = self._running.monotonic, self._running.began
        started = began[number] = monotonic()
        result = await self._call(list(events), deliveries)
        ended = monotonic()
        began[number] = 0.0
        self._settlement.handled_batch(batch, events, born, result, ended - started, ended)

    def _decode_each(self, batch: list[Received]) -> tuple[list[Received], list[Event[Any]]]:
        """Return what can be read of a batch, and the events; the rest ends here."""
        readable: list[Received] = []
        events: list[Event[Any]] = []
        for received in batch:
            try:
                events.append(self._decoder.decode(received))
            except DecodeError as error:
                self._settlement.undecodable(received, error)
            else:
                readable.append(received)
        return readable, events

    # -- the call

    async def _call(self, event: Any, delivery: Any) -> tuple[Any, BaseException | None]:
        """Await the handler; return what it returned and what it raised. User code may fail, a lane may not."""
        try:
            returned = await self._handler.with_delivery(event, delivery)
            return (None if returned is None else await whole(returned)), None
        except BaseException as error:  # noqa: BLE001
            return None, self._running.failure(error)

    def _is_clean(self, task: asyncio.Task[Any], clean: contextvars.Context) -> bool:
        """Tell whether the last handler left the lane's task as it was."""
        try:
            return not task.cancelling() and contextvars.copy_context() == clean
        except BaseException as error:  # noqa: BLE001 - what it left there may not be comparable
            self._running.failure(error)
            return False
