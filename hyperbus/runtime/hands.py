"""The quick way to hand events over: several are taken and decoded at a time, and handled one after another."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

from hyperbus.clock import Clock
from hyperbus.errors import DecodeError
from hyperbus.event.envelope import Event
from hyperbus.runtime.decoding import EventDecoder
from hyperbus.runtime.inbox import Inbox, Received
from hyperbus.runtime.settling import Settling
from hyperbus.runtime.solitude import Solitude

#: Deliveries in a hand, at most: taking and decoding them then costs next to nothing beside handling them.
MOST = 32


class Hands:
    """Hands events over on one lane. For consumers that take events one by one, in no order, and no deliveries.

    A hand is what the lane takes from the inbox at a time. What of it is not begun when the event loop turns, because
    a handler waits or has used up the lane's turn, goes back: other lanes may be free, or the worker may be leaving.
    So the next hand is only as large as twice what went through of this one; of handlers that wait, it is one.
    """

    def __init__(
        self,
        inbox: Inbox,
        decoder: EventDecoder,
        handle: Callable[[Event[Any]], Awaitable[Any]],
        settling: Settling,
        clock: Clock,
        solitude: Solitude,
        *,
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
        self._began = began
        self._lane = lane
        self._failure_of = failure_of
        self._size = 1

    async def run(self, clean: contextvars.Context, until: float) -> float:
        """Hand over for as long as there is something to take; return when the last handler ended, 0 if none began.

        It ends early when a handler leaves the task cancelled or its context not `clean`, when a suspect wants the
        process to itself, and at `until`; both times are on the monotonic clock. The hot path, in one frame.
        """
        inbox, settling, solitude, decode = self._inbox, self._settling, self._solitude, self._decoder.decode_many
        handle, monotonic, began, lane = self._handle, self._monotonic, self._began, self._lane
        done, seconds, latencies = settling.done, settling.seconds, settling.latencies
        task, context = asyncio.current_task(), contextvars.copy_context
        assert task is not None
        size, ended, over = self._size, 0.0, False
        while not (over or solitude.wanted) and (hand := inbox.take_more(size)):
            events, turn = decode(hand) or self._decode_first(hand), settling.turns
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
                if ended >= until or task.cancelling() or context() != clean:  # contexts compare by identity first
                    over = True
                    break
            began[lane] = 0.0
            if hand:
                self._give_back(hand)
                size = max(1, size // 2)
            else:
                size = min(2 * size, MOST) if settling.turns == turn else 1
        self._size = size
        return ended

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
