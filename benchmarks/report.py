"""What the rounds come to: medians, spreads, ratios, and which bars were met. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.question import Bar, Figure, Loop
from benchmarks.rounds import Taken

Verdict = Literal["met", "below", "not measured", "no bar"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure beside another one, or beside a bar of its own.

    Attributes:
        of: the title of the other figure; None: the bar is about the figure itself.
        ratio: to the other figure, the median of the ratios of each round; None: one of the two was not measured.
    """

    of: str | None
    ratio: float | None
    bar: str | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, over all rounds."""

    name: str
    title: str
    unit: str
    median: float
    low: float
    high: float
    loop: Loop
    comparisons: tuple[Comparison, ...]
    rounds: tuple[float, ...]

    @property
    def below(self) -> bool:
        """Whether it missed a bar."""
        return any(comparison.verdict == "below" for comparison in self.comparisons)


def rows_of(figures: Iterable[Figure], taken: Taken) -> list[Row]:
    """Return a row for each figure that was measured."""
    figures = list(figures)
    titles = {figure.name: figure.title for figure in figures}
    return [_row(figure, taken, titles) for figure in figures if taken.values.get(figure.name)]


def ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Return the median ratio of rounds that have both; of figures that differ in rounds, the ratio of medians."""
    if len(values) != len(others):
        return statistics.median(values) / statistics.median(others)
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


def _row(figure: Figure, taken: Taken, titles: Mapping[str, str]) -> Row:
    values = taken.values[figure.name]
    compared = [(bar.of, bar) for bar in figure.bars] + [(other, None) for other in figure.against]
    return Row(
        name=figure.name,
        title=figure.title,
        unit=figure.unit,
        median=statistics.median(values),
        low=min(values),
        high=max(values),
        loop=figure.loop or taken.loops[figure.name],
        comparisons=tuple(_compare(values, other, bar, taken, titles) for other, bar in compared),
        rounds=tuple(values),
    )


def _compare(
    values: Sequence[float], other: str | None, bar: Bar | None, taken: Taken, titles: Mapping[str, str]
) -> Comparison:
    shown = None if bar is None else str(bar)
    if other is None:
        assert bar is not None
        return Comparison(None, None, shown, _verdict(bar, statistics.median(values)))
    title = titles.get(other, other)
    others = taken.values.get(other)
    if not others:
        return Comparison(title, None, shown, "not measured")
    found = ratio(values, others)
    return Comparison(title, found, shown, _verdict(bar, found))


def _verdict(bar: Bar | None, value: float) -> Verdict:
    if bar is None:
        return "no bar"
    return "met" if bar.met_by(value) else "below"
