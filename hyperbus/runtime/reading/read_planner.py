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


class ReadPlanner:
    """Goes round the streams that are behind, which are those that had as many entries as they were asked for.

    1. While none is behind, a read asks all streams.
    2. Else it asks as many of those that are behind as fit, one after another, and every fourth read asks all others.
    """

    def __init__(self) -> None:
        self._behind: deque[str] = deque()
        self._reads = 0

    def next(self, names: tuple[str, ...], room: int) -> Ask:
        """Return what to ask when there is room for `room` entries; `names` are all streams, at least one."""
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
