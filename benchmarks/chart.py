"""The chart: a bar a figure, as SVG that reads well on light and dark pages. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.report import Row
from benchmarks.table import number

#: What is drawn, from the top: the ceiling, hyperbus, and then its peers, the fastest first.
PANELS = (
    ("Publish", ("bare_publish", "publish_many", "publish_tasks", "publish_one"), "publish_"),
    ("Consume and ack", ("bare_consume", "consume_one", "consume_batch", "consume_64"), "consume_"),
)
_WIDTH = 860
_LABELS = 330
_VALUES = 110
_LINE = 24
_BAR = 14
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 15px }
.small { font-size: 11px; fill: #57606a }
.ours { fill: #0969da } .bare { fill: #afb8c1 } .peer { fill: #d4a72c }
.spread { stroke: #24292f; stroke-width: 1 }
@media (prefers-color-scheme: dark) {
 text { fill: #e6edf3 } .small { fill: #8d96a0 }
 .ours { fill: #4493f8 } .bare { fill: #6e7681 } .peer { fill: #bb8009 }
 .spread { stroke: #e6edf3 }
}
"""


def chart(rows: Sequence[Row], machine: str) -> str:
    """Return the chart of the rows that it knows; those that were not measured are left out."""
    shown: list[str] = []
    top = _LINE
    for title, names, peers in PANELS:
        chosen = _chosen(rows, names, peers)
        if not chosen:
            continue
        shown.append(f'<text class="title" x="10" y="{top}">{title}, events/s</text>')
        most = max(row.high for row in chosen)
        for row in chosen:
            top += _LINE
            shown += _drawn(row, top, most)
        top += 2 * _LINE
    shown.append(f'<text class="small" x="10" y="{top}">Medians, and the span of all rounds. {escape(machine)}</text>')
    height = top + _LINE // 2
    begin = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="Events a second, published and consumed">'
    )
    return "\n".join([begin, f"<style>{_STYLE}</style>", *shown, "</svg>\n"])


def _chosen(rows: Sequence[Row], names: Sequence[str], peers: str) -> list[Row]:
    known = {row.name: row for row in rows}
    ours = [known[name] for name in names if name in known]
    others = [row for row in rows if row.name.partition(".")[2].startswith(peers)]
    return ours + sorted(others, key=lambda row: -row.median)


def _drawn(row: Row, y: int, most: float) -> Iterator[str]:
    kind = "peer" if "." in row.name else "bare" if row.name.startswith("bare") else "ours"
    scale = (_WIDTH - _LABELS - _VALUES) / most
    end, low, high = (_LABELS + value * scale for value in (row.median, row.low, row.high))
    middle = y - _BAR / 2 + 2
    yield f'<text x="{_LABELS - 10}" y="{y}" text-anchor="end">{escape(row.title)}</text>'
    yield (
        f'<rect class="{kind}" x="{_LABELS}" y="{y - _BAR + 2}" width="{max(1, end - _LABELS):.1f}" '
        f'height="{_BAR}" rx="2"/>'
    )
    yield f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
    yield f'<text x="{high + 8:.1f}" y="{y}">{number(row.median)}</text>'
