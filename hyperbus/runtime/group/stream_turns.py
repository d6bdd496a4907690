"""Which of very many streams the next read names: those where something happens often, the others in turns. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from hyperbus.clock import Seconds
from hyperbus.transport import Read

#: As many streams are named in every read. Naming one costs the server 2 microseconds, whether it has anything or not,
#: and a read that waits for them is woken by each.
MANY = 1_000
#: Of more than that, this many lively ones are named in one read; of the others twice as many.
PAGE = 500
#: As many of them are named even where fewer entries are wanted.
LEAST = 25
#: A stream that had something this lately is lively: it is named in every read that waits.
LIVELY: Seconds = 60.0
#: How long such a read waits, and how far apart pages of the others are asked at least.
WAIT: Seconds = 0.1


class Turn(NamedTuple):
    """The streams of a read, and how long it may wait; None: as long as it likes.

    `expected`: they were to be asked soon; who cannot ask them all now expects the others again.
    """

    names: tuple[str, ...]
    wait: Seconds | None
    expected: bool = False


class StreamTurns:
    """Chooses among all streams of a worker.

    1. Up to `MANY` are all named.
    2. Of more, those that are expected to have something come first: they were found, or told of, and not asked yet.
    3. Then, by turns: the lively ones, with a wait; and a page of the others, without. All of them come round, 10,000 a
       second: a stream that another program fills after long quiet is found in that time.
    """

    def __init__(self) -> None:
        self._expected: dict[str, None] = {}
        self._lively: dict[str, float] = {}
        self._next = self._next_share = 0
        self._page_at = float("-inf")
        self._names: Sequence[str] = ()

    def expect(self, names: Iterable[str]) -> None:
        """Ask these streams soon."""
        self._expected.update(dict.fromkeys(names))

    def next(self, names: Sequence[str], now: float, *, room: int = PAGE) -> Turn:
        """Return the next turn at a monotonic time; `names` are all streams, at least one.

        `room`: entries that are wanted; of streams that are expected to have one, not many more are named.
        """
        if len(names) <= MANY:
            self._expected.clear()
            return Turn(tuple(names), None)
        self._know(names)
        if self._expected:
            page = list(islice(self._expected, min(PAGE, max(LEAST, room))))
            for name in page:
                del self._expected[name]
                self._note(name, now)
            return Turn(tuple(page), 0.0, expected=True)
        if now - self._page_at >= WAIT or not self._lively:
            idle = not self._lively
            self._page_at = now
            return Turn(self._page(names), WAIT if idle else 0.0)
        return Turn(tuple(self._lively), WAIT)

    def answered(self, turn: Turn, asked: Iterable[str], each: int, read: Read, now: float) -> None:
        """Take note of what came: those that had as many entries as were asked for may have more."""
        for name, page in read:
            self._note(name, now)
            if len(page) >= each:
                self._expected[name] = None
        if turn.expected:
            self.expect(set(turn.names).difference(asked))

    def share(self, names: Sequence[str], now: float) -> tuple[str, ...]:
        """Return all of them, or the lively ones and the next page of very many: for what is looked at now and then."""
        if len(names) <= MANY:
            return tuple(names)
        self._tidy(now)
        start = self._next_share % len(names)
        self._next_share = start + MANY
        return tuple(dict.fromkeys((*self._lively, *names[start : start + MANY])))

    def _know(self, names: Sequence[str]) -> None:
        """Forget the streams that are not among these."""
        if names is self._names:
            return
        self._names = names
        there = frozenset(names)
        self._expected = {name: None for name in self._expected if name in there}
        self._lively = {name: at for name, at in self._lively.items() if name in there}

    def _note(self, name: str, now: float) -> None:
        self._lively.pop(name, None)
        self._lively[name] = now
        self._tidy(now)

    def _tidy(self, now: float) -> None:
        """Let go of those that have been quiet, or are too many: the oldest come first."""
        while self._lively:
            name = next(iter(self._lively))
            if len(self._lively) <= PAGE and now - self._lively[name] < LIVELY:
                return
            del self._lively[name]

    def _page(self, names: Sequence[str]) -> tuple[str, ...]:
        start = self._next % len(names)
        self._next = start + MANY
        return tuple(names[start : start + MANY])
