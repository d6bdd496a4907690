"""Events of one key, one after the other. Pure: what may begin, and what comes next."""

from __future__ import annotations

from collections import deque

from hyperbus.runtime.in_flight.inbox import Received


class KeyOrder:
    """Knows, for every key, the delivery whose turn it is, and those that wait behind it.

    A delivery keeps its turn until it has ended for good, through all its tries.
    """

    def __init__(self) -> None:
        self._turns: dict[str, Received] = {}
        self._waiting: dict[str, deque[Received]] = {}

    def begin(self, key: str, received: Received) -> bool:
        """Tell whether a delivery may be handled now; if not, it waits here until `end` names it."""
        turn = self._turns.setdefault(key, received)
        if turn is received:
            return True
        self._waiting.setdefault(key, deque()).append(received)
        return False

    def end(self, key: str) -> Received | None:
        """End the turn of the delivery that has it; return the one whose turn it is now."""
        waiting = self._waiting.get(key)
        if waiting is None:
            del self._turns[key]
            return None
        following = self._turns[key] = waiting.popleft()
        if not waiting:
            del self._waiting[key]
        return following

    def close(self) -> list[Received]:
        """Return every delivery that waits behind another, and forget them."""
        left = [received for waiting in self._waiting.values() for received in waiting]
        self._waiting.clear()
        return left
