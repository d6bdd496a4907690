"""The quick way to hand events over: several are taken and decoded at a time, and handled one after another."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import DecodeError
from hyperbus.event.envelope import Event
from hyperbus.runtime.handling.decoder import EventDecoder
from hyperbus.runtime.handling.settlement import Settling
from hyperbus.runtime.in_flight.inbox import Inbox, Received
from hyperbus.runtime.poison.isolation import Solitude

#: How long a turn is.
LONGEST: Seconds = 0.001
#: Deliveries in a hand, at most: taking and decoding them then costs next to nothing beside handling them.
MOST = 32


class Turn:
    """How long a lane goes on with handlers that never wait, before it lets the rest of the process run.

    Attributes:
        ends: when it is over, on the monotonic clock.
    """

    def __init__(self, settling: Settling, clock: Clock) -> None:
        self._settling = settling
        self._monotonic = clock.monotonic
        self.begin()

    def begin(self) -> None:
        """Begin a turn."""
        self._turns = self._settling.turns
        self.ends = self._monotonic() + LONGEST

    async def end(self) -> None:
        """Let others run, unless they have since the turn began; begin the next one."""
        if self._settling.turns == self._turns:
            await asyncio.sleep(0)
        self.begin()


class Hands:
    """Hands events over on one lane. For consumers that take events one by one, in no order, and no deliveries.

    A hand is what the lane takes from the inbox at a time. What of it is not begun when the event loop turns, because
    a handler waits or has used up the lane's turn, goes back: other lanes may be free, or the worker may be leaving.
    So the next hand is only as large as twice what went through of this one; of handlers that wait, it is one.
    """

    def __init__(
        self,
        *,
        inbox: Inbox,
        decoder: EventDecoder,
        handle: Callable[[Event[Any]], Awaitable[Any]],
        settling: Settling,
        clock: Clock,
        solitude: Solitude,
        turn: Turn,
        began: list[float],
        lane: int,
        failure_of: Callable[[BaseException], BaseException],
    ) -> None:
        self._inbox = inbox
        self._decoder = decoder
        self._handle = handle
        self._settling = settling
        self._monotonic = clock.monotonic
        self._solitude = solitude
        self._turn = turn
        self._began = began
        self._lane = lane
        self._failure_of = failure_of
        self._size = 1

    async def run(self, clean: contextvars.Context) -> None:
        """Hand over for as long as there is something to take. The hot path, in one frame.

        It ends early when a suspect wants the process to itself, and when a handler leaves the task cancelled or its
        context not `clean`.
        """
        inbox, settling, solitude, decode = self._inbox, self._settling, self._solitude, self._decoder.decode_many
        handle, monotonic, began, lane = self._handle, self._monotonic, self._began, self._lane
        done, seconds, latencies = settling.done, settling.seconds, settling.latencies
        task, context, turn = asyncio.current_task(), contextvars.copy_context, self._turn
        assert task is not None
        size, is_clean = self._size, True
        while is_clean and not solitude.wanted and (hand := inbox.take_more(size)):
            events, turns = decode(hand) or self._decode_first(hand), settling.turns
            if len(hand) > 1:
                self._lend(hand)
            ended = monotonic()
            for event in events:
                if not hand:
                    break
                received = hand.pop()
                started = began[lane] = ended
                failure: BaseException | None = None
                try:
                    await handle(event)
                except (asyncio.CancelledError, Exception) as error:  # noqa: BLE001 - user code may fail, a lane may not
                    failure = self._failure_of(error)
                ended = monotonic()
                if failure is None and done:
                    done.append(received)
                    seconds.append(ended - started)
                    latencies.append(ended + settling.epoch - event.timestamp.timestamp())
                else:
                    settling.handled(received, event, failure, ended - started, ended)
                if task.cancelling() or context() != clean:  # next to free: contexts compare by identity first
                    is_clean = False
                    break
                if ended >= turn.ends:
                    began[lane] = 0.0  # a suspect that waits for handlers to end must not wait for this one
                    await turn.end()
            began[lane] = 0.0
            if hand:
                self._give_back(hand)
                size = max(1, size // 2)
            else:
                size = min(2 * size, MOST) if settling.turns == turns else 1
        self._size = size

    def _decode_first(self, hand: list[Received]) -> list[Event[Any]]:
        """Return the first event, if it can be decoded; the rest of the hand goes back."""
        received, *others = hand
        self._give_back(others[::-1])
        hand[:] = [received]
        try:
            return [self._decoder.decode(received)]
        except DecodeError as error:
            self._settling.undecodable(hand.pop(), error)
            return []

    def _lend(self, hand: list[Received]) -> None:
        """Turn a hand over, so that its last item is the next to begin; have what is left of it back soon."""
        hand.reverse()
        asyncio.get_running_loop().call_soon(self._give_back, hand)

    def _give_back(self, hand: list[Received]) -> None:
        """Give back what was not begun; the last item is the one to begin with."""
        for received in hand:
            self._inbox.put_back(received)
        hand.clear()
