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
        self._began = began
        self._lane = lane
        self._failure_of = failure_of
        self._size = 1

    def take(self) -> list[Received]:
        """Return the next hand; an empty one if nothing waits, or something that must not be handed over like this."""
        return self._inbox.take_more(self._size)

    async def hand_over(self, hand: list[Received], clean: contextvars.Context, until: float) -> float:
        """Handle what was taken; return when the last handler ended, on the monotonic clock.

        It ends early, and gives back the rest, when a handler leaves the task cancelled or its context not `clean`,
        when the loop turned meanwhile, and at `until`.
        """
        events = self._decoder.decode_many(hand)
        if events is None:
            self._give_back(hand[:0:-1])
            del hand[1:]
            events = self._decode_one(hand)
        taken, turn = len(hand), self._settling.turns
        hand.reverse()
        if taken > 1:
            asyncio.get_running_loop().call_soon(self._give_back, hand)
        ended = await self._run(hand, events, clean, until)
        self._began[self._lane] = 0.0
        if hand:
            self._give_back(hand)
            self._size = max(1, self._size // 2)
        else:
            self._size = min(2 * taken, MOST) if self._settling.turns == turn else 1
        return ended

    async def _run(
        self, hand: list[Received], events: list[Event[Any]], clean: contextvars.Context, until: float
    ) -> float:
        """Handle events, the last item of `hand` first; return when the last one ended. The hot path, in one frame."""
        handle, monotonic, began, lane = self._handle, self._monotonic, self._began, self._lane
        settling, context = self._settling, contextvars.copy_context
        done, seconds, latencies = settling.done, settling.seconds, settling.latencies
        task = asyncio.current_task()
        assert task is not None
        cancelling, take = task.cancelling, hand.pop
        ended = monotonic()
        for event in events:
            if not hand:
                break
            received = take()
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
            # next to free: contexts compare by identity first
            if ended >= until or cancelling() or context() != clean:
                break
        return ended

    def _decode_one(self, hand: list[Received]) -> list[Event[Any]]:
        """Return the one event; where it cannot be decoded, nothing, and the hand is empty."""
        try:
            return [self._decoder.decode(hand[0])]
        except DecodeError as error:
            self._settling.undecodable(hand.pop(), error)
            return []

    def _give_back(self, hand: list[Received]) -> None:
        """Give back what was not begun; the last item is the one to begin with."""
        for received in hand:
            self._inbox.put_back(received)
        hand.clear()
