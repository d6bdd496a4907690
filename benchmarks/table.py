"""The table on stdout: a line a figure and comparison.

`python -m benchmarks.table` prints that of the last whole run in Markdown, for the documents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.report import Comparison, Row

_RED, _PLAIN = "\x1b[31m", "\x1b[0m"
_COLUMNS = ("question", "median", "min..max", "ratio", "bar", "loop")


def number(value: float) -> str:
    """Return a number as people read it: three digits that count, thousands apart."""
    if value == int(value) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def lines(rows: Sequence[Row], *, colours: bool) -> list[str]:
    """Return the lines; what is below its bar is red, or marked with a word where there are no colours."""
    cells = [(_COLUMNS, False), *_cells(rows)]
    widths = [max(len(line[column]) for line, _ in cells) for column in range(len(_COLUMNS))]
    shown = []
    for line, below in cells:
        text = "  ".join(
            cell.rjust(width) if column in (1, 2) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        if below:
            text = f"{_RED}{text}{_PLAIN}" if colours else f"{text}  below"
        shown.append(text)
    return shown


def markdown(rows: Sequence[Row]) -> list[str]:
    """Return the table as Markdown, for the documents."""
    shown = ["| " + " | ".join(_COLUMNS) + " |", "|---|--:|--:|---|---|---|"]
    return shown + [f"| {' | '.join(line)} |" for line, _ in _cells(rows)]


def _cells(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, ...], bool]]:
    for row in rows:
        value = f"{number(row.median)} {row.unit}".rstrip()
        first = (row.title, value, f"{number(row.low)}..{number(row.high)}")
        compared = row.comparisons or (Comparison(None, None, None, "no bar"),)
        for place, comparison in enumerate(compared):
            begin = ("", "", "") if place else first
            yield (
                (*begin, _ratio(comparison), comparison.bar or "", "" if place else row.loop),
                (comparison.verdict == "below"),
            )


def _ratio(comparison: Comparison) -> str:
    if comparison.of is None:
        return ""
    found = "not measured" if comparison.ratio is None else f"{comparison.ratio:.3g}"
    return f"{found} x {comparison.of}"


if __name__ == "__main__":
    last = json.loads(Path(__file__).with_name("results").joinpath("latest.json").read_text())
    print("\n".join(markdown(msgspec.convert(last["rows"], list[Row]))))
