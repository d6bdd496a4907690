"""Events of one key, one after the other: what may begin, and what comes next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from hyperbus.event.envelope import Event
from hyperbus.interruption import is_from_signal
from hyperbus.runtime.in_flight.decoder import EventDecoder
from hyperbus.runtime.in_flight.received import Received


class KeyOrder:
    """Knows, for every key, the delivery that comes first, and those that wait behind it.

    A delivery comes first until it has ended for good, through all its tries.
    """

    def __init__(self, decoder: EventDecoder, key_of: Callable[[Event[Any]], str | None]) -> None:
        self._decoder = decoder
        #: The key of an event, by the consumer's `order_by`; None: it has none. A user's code, and may fail.
        self.key_of = key_of
        self._first: dict[str, Received] = {}
        self._waiting: dict[str, deque[Received]] = {}

    def begin(self, key: str, received: Received) -> bool:
        """Tell whether a delivery may be handled now; if not, it waits here until `end` names it."""
        first = self._first.setdefault(key, received)
        if first is received:
            return True
        self._waiting.setdefault(key, deque()).append(received)
        return False

    def reserve(self, received: Received) -> bool:
        """Let an entry that nobody decoded yet come first of its key; False: another does, and it waits behind that."""
        key = self.key_of_undecoded(received)
        return key is None or self.begin(key, received)

    def end(self, key: str) -> Received | None:
        """End the delivery that came first; return the one that does now."""
        waiting = self._waiting.get(key)
        if waiting is None:
            del self._first[key]
            return None
        following = self._first[key] = waiting.popleft()
        if not waiting:
            del self._waiting[key]
        return following

    def key_held_by(self, received: Received) -> str | None:
        """Return the key of which a delivery comes first; None: of none. Asked where its key cannot be had any more."""
        return next((key for key, first in self._first.items() if first is received), None)

    def key_of_undecoded(self, received: Received) -> str | None:
        """Return the key of an entry that is not handed over yet; None: it has none, or cannot be read."""
        try:
            return self.key_of(self._decoder.decode(received))
        except BaseException as error:
            if is_from_signal(error):
                raise
            return None

    def close(self) -> list[Received]:
        """Return every delivery that waits behind another, and forget them."""
        left = [received for waiting in self._waiting.values() for received in waiting]
        self._waiting.clear()
        return left
