"""Which streams the next read asks, and for how many entries: many streams cost no more than one. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

#: Entries that a read asks of a stream, at least, where several have more than it can take: naming a stream in a read
#: and in an ack costs as much as handling a few events.
LEAST = 25
#: After this many reads of streams that are behind, all others are asked.
OTHERS_EVERY = 4
#: How far a read may go over the room there is, should every stream have enough. Most of the time most have nothing.
OVERSHOOT = 4


class Ask(NamedTuple):
    """A read: of these streams, for so many entries of each. It may wait for the first where `waits`."""

    names: tuple[str, ...]
    each: int
    waits: bool


def share(room: int, streams: int) -> int:
    """Return how many entries to ask of each stream: some of them have nothing, and all together stay near the room."""
    return max(1, min(room, room * OVERSHOOT // max(1, streams)))


class Rounds:
    """Goes round more streams than a read may name: a few at a time, and all of them once none had anything."""

    def __init__(self) -> None:
        self._next = 0
        self._in_vain = 0

    def next(self, names: tuple[str, ...], most: int) -> Ask:
        """Return what to ask of `names` where a read may bring `most` entries, of fewer than all of them."""
        if self._in_vain >= len(names):
            self._in_vain = 0
            return Ask(names, 1, waits=True)
        start = self._next % len(names)
        self._next = start + most
        self._in_vain += most
        return Ask((names[start:] + names[:start])[:most], 1, waits=False)

    def answered(self, *, any_came: bool) -> None:
        """Take note of an answer."""
        if any_came:
            self._in_vain = 0


class ReadPlanner:
    """Goes round the streams that are behind, which are those that had as many entries as they were asked for.

    1. While none is behind, a read asks all streams.
    2. Else it asks as many of those that are behind as fit, one after another, and every fourth read asks all others.
    3. Where a read may not even bring one entry of each, as others failed, it goes round (`Rounds`).
    """

    def __init__(self) -> None:
        self._behind: deque[str] = deque()
        self._reads = 0
        self._rounds = Rounds()

    def next(self, names: tuple[str, ...], room: int, *, most: int | None = None, fits: int | None = None) -> Ask:
        """Return what to ask.

        Args:
            names: all streams, at least one.
            room: entries that are wanted; a read may bring more, should every stream have enough.
            most: entries that it may bring, of all streams together; None: any number.
            fits: the same, as far as one of each stream is not too many.
        """
        if most is not None and most < len(names):
            return self._rounds.next(names, most)
        room = room if most is None else min(room, most)
        ask = self._choose(names, room)
        limits = [limit for limit in (most, fits) if limit is not None]
        return ask._replace(each=max(1, min([ask.each, *(limit // len(ask.names) for limit in limits)])))

    def _choose(self, names: tuple[str, ...], room: int) -> Ask:
        behind, few = self._behind, max(1, room // LEAST)
        shared = share(room, len(names))
        if not behind:
            return Ask(names, shared, waits=True)
        if len(names) <= few:
            return Ask(names, min(shared, max(1, room // len(behind))), waits=True)
        self._reads += 1
        if self._reads % OTHERS_EVERY == 0 and (others := self._others(names)):
            return Ask(others, share(room, len(others)), waits=False)
        names = tuple(islice(behind, few))
        return Ask(names, max(1, room // len(names)), waits=False)

    def answered(self, ask: Ask, sizes: Mapping[str, int]) -> None:
        """Take what came: how many entries, by stream."""
        self._rounds.answered(any_came=bool(sizes))
        full = [name for name in ask.names if sizes.get(name, 0) >= ask.each]
        if not full and not self._behind:
            return
        asked = frozenset(ask.names)
        self._behind = deque([*(name for name in self._behind if name not in asked), *full])

    def forget(self) -> None:
        """Begin anew: a read failed, or streams are left alone."""
        self._behind.clear()

    def _others(self, names: Sequence[str]) -> tuple[str, ...]:
        behind = frozenset(self._behind)
        return tuple(name for name in names if name not in behind)
