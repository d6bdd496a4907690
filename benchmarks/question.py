"""What a question is: something to measure, the figures that come of it, and the bars that they have to clear."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from benchmarks.form import Depth
from hyperbus.supervisor.worker_process.event_loop import LoopName

#: What was measured, by the name of its figure.
Values = dict[str, float]
#: The loop of a figure: "-" where there is none.
Loop = Literal["asyncio", "uvloop", "-"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how a question is asked: an empty server, how much, on which loop."""

    host: str
    port: int
    factor: float
    loop: LoopName

    @property
    def url(self) -> str:
        """Where the server is."""
        return f"redis://{self.host}:{self.port}/0"

    def events(self, by_default: int) -> int:
        """Return how many events to measure with: whole batches of 500, of which there are at least four."""
        return max(4, round(by_default * self.factor / 500)) * 500


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure has to reach: by itself, or as a multiple of another figure of the same run."""

    limit: float
    of: str | None = None
    at_most: bool = False

    def met_by(self, value: float) -> bool:
        """Tell whether a figure, or its ratio to the other one, clears the bar."""
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One value, and what it is compared with.

    Attributes:
        name: the key of its value.
        title: what it is called in the table.
        unit: of its value.
        against: figures that it is compared with, where no bar does so already.
        bars: what it has to reach.
        loop: what it was measured on, where that is not the loop of the question.
    """

    name: str
    title: str
    unit: str = "events/s"
    against: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = ()
    loop: Loop | None = None

    @property
    def others(self) -> tuple[str, ...]:
        """The figures that have to be measured too."""
        return self.against + tuple(bar.of for bar in self.bars if bar.of is not None)


@dataclass(frozen=True, slots=True)
class Question:
    """Something to measure.

    Attributes:
        name: what `--only` calls it.
        measure: asked in a process of its own, on an empty server. A coroutine function runs on the chosen loop.
        figures: what comes of it.
        depth: the least thorough form in which it is asked.
        rounds: in how many rounds it is asked; None: in every one.
    """

    name: str
    measure: Callable[[Place], Values | Awaitable[Values]]
    figures: tuple[Figure, ...]
    depth: Depth = Depth.DEFAULT
    rounds: int | None = None


def with_needed(chosen: Iterable[Question], known: Iterable[Question]) -> list[Question]:
    """Return `chosen` and what they are compared with, in the order of `known`."""
    known = list(known)
    asks = {figure.name: question for question in known for figure in question.figures}
    wanted: dict[str, Question] = {}
    waiting = list(chosen)
    while waiting:
        question = waiting.pop()
        if question.name in wanted:
            continue
        wanted[question.name] = question
        others = (other for figure in question.figures for other in figure.others)
        waiting += [asks[other] for other in others if other in asks]
    return [question for question in known if question.name in wanted]
