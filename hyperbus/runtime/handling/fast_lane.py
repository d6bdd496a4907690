"""The quick way to hand events over: several are taken and decoded at a time, and handled one after another."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import DecodeError
from hyperbus.event.envelope import Event
from hyperbus.runtime.handling.handler import Handler, whole
from hyperbus.runtime.handling.running_handlers import RunningHandlers
from hyperbus.runtime.handling.settlement import Settlement
from hyperbus.runtime.in_flight.decoder import EventDecoder
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import Received
from hyperbus.runtime.poison.isolation import Isolation

#: How long a time slice is.
SLICE: Seconds = 0.001
#: A handler that blocked the event loop for longer leaves entries to others, where more wait than begin soon.
BLOCKED: Seconds = 0.1
#: How long a lane then rests, in which that is agreed upon: at most, and as a part of the time that was blocked.
REST: Seconds = 0.1
REST_PART = 0.2
#: Deliveries that are taken at a time, at most: taking and decoding them then costs little beside handling them.
MOST = 32


class TimeSlice:
    """How long a lane goes on with handlers that never wait, before it lets the rest of the process run.

    Attributes:
        ends: when it is over, on the monotonic clock.
    """

    def __init__(self, settlement: Settlement, inbox: Inbox, clock: Clock) -> None:
        self._settlement = settlement
        self._inbox = inbox
        self._monotonic = clock.monotonic
        self.begin()

    def begin(self) -> None:
        """Begin a slice."""
        self._rounds = self._settlement.rounds
        self.ends = self._monotonic() + SLICE

    async def end(self) -> None:
        """Let others run, unless they have since the slice began; begin the next one."""
        if self._settlement.rounds == self._rounds:
            blocked = self._monotonic() - self.ends
            rests = blocked > BLOCKED and self._inbox.surplus()
            await asyncio.sleep(min(REST, blocked * REST_PART) if rests else 0)
        self.begin()


class FastLane:
    """Hands events over on one lane. For consumers that take events one by one, in no order, and no deliveries.

    A lane takes several entries at a time. What of them is not begun when the event loop goes round, because a handler
    waits or has used up the time slice, is requeued: other lanes may be free, or the worker may be leaving. So it next
    takes only twice as many as went through of these; of handlers that wait, one.
    """

    def __init__(
        self,
        handler: Handler,
        running: RunningHandlers,
        inbox: Inbox,
        decoder: EventDecoder,
        settlement: Settlement,
        isolation: Isolation,
        time_slice: TimeSlice,
        lane: int,
    ) -> None:
        self._handle = handler.alone
        self._running = running
        self._inbox = inbox
        self._decoder = decoder
        self._settlement = settlement
        self._isolation = isolation
        self._time_slice = time_slice
        self._lane = lane
        self._size = 1

    async def run(self, clean: contextvars.Context) -> None:
        """Hand over for as long as there is something to take. The hot path, in one frame.

        It ends early when a suspect wants the process to itself, and when a handler leaves the task cancelled or its
        context not `clean`.
        """
        inbox, settlement, isolation, decode = self._inbox, self._settlement, self._isolation, self._decoder.decode_many
        handle, running, lane, is_clean = self._handle, self._running, self._lane, True
        monotonic, began, size = running.monotonic, running.began, self._size
        # these lists are the settlement's own: a call an event would be felt
        done, seconds, latencies = settlement.done, settlement.seconds, settlement.latencies
        task, context, time_slice = asyncio.current_task(), contextvars.copy_context, self._time_slice
        assert task is not None
        while is_clean and not isolation.wanted and (taken := inbox.take_more(size)):
            events, rounds = decode(taken) or self._decode_first(taken), settlement.rounds
            if len(taken) > 1:
                self._lend(taken)
            ended = monotonic()
            for event in events:
                if not taken:
                    break
                received = taken.pop()
                born = event.timestamp.timestamp()  # before the handler has the event, which it may change
                started = began[lane] = ended
                failure: BaseException | None = None
                try:
                    if (returned := await handle(event)) is not None:
                        await whole(returned)
                except BaseException as error:  # noqa: BLE001 - user code may fail, a lane may not
                    failure = running.failure(error)
                ended = monotonic()
                if failure is None and done:
                    done.append(received)
                    seconds.append(ended - started)
                    latencies.append(ended + settlement.epoch - born)
                else:
                    settlement.handled(received, event, born, failure, ended - started, ended)
                try:
                    is_clean = not task.cancelling() and context() == clean  # next to free: identity comes first
                except BaseException as error:  # noqa: BLE001 - what the handler left there may not be comparable
                    is_clean = running.failure(error) is None
                if not is_clean:
                    break
                if ended >= time_slice.ends:
                    began[lane] = 0.0  # a suspect that waits for handlers to end must not wait for this one
                    await time_slice.end()
            began[lane] = 0.0
            size = self._size_after(size, taken, went_through=settlement.rounds == rounds)
        self._size = size

    def _size_after(self, size: int, left: list[Received], *, went_through: bool) -> int:
        """Requeue what is left of those that were taken; return how many to take next."""
        if left:
            self._requeue(left)
            return max(1, size // 2)
        return min(2 * size, MOST) if went_through else 1

    def _decode_first(self, taken: list[Received]) -> list[Event[Any]]:
        """Return the first event, if it can be decoded; the rest is requeued."""
        received, *others = taken
        self._requeue(others[::-1])
        taken[:] = [received]
        try:
            return [self._decoder.decode(received)]
        except DecodeError as error:
            self._settlement.undecodable(taken.pop(), error)
            return []

    def _lend(self, taken: list[Received]) -> None:
        """Reverse what was taken, so that its last item is the next to begin; requeue what is left of it soon."""
        taken.reverse()
        asyncio.get_running_loop().call_soon(self._requeue, taken)

    def _requeue(self, taken: list[Received]) -> None:
        """Requeue what was not begun; the last item is the one to begin with."""
        for received in taken:
            self._inbox.requeue(received)
        taken.clear()
