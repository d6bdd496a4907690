"""What the rounds of a benchmark come to: medians, ratios, bars, the table, the chart and the exit code."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from benchmarks.chart import chart
from benchmarks.form import DEFAULT, QUICK
from benchmarks.question import Bar, Figure
from benchmarks.report import Row, ratio, rows_of
from benchmarks.rounds import Taken
from benchmarks.run import exit_code, write
from benchmarks.table import lines, markdown, number

CEILING = Figure("bare_publish", "bare socket", loop="-")


def rows(*figures: Figure, **values: list[float]) -> list[Row]:
    return rows_of([CEILING, *figures], Taken(values, dict.fromkeys(values, "uvloop")))


def row(name: str, found: list[Row]) -> Row:
    (wanted,) = [one for one in found if one.name == name]
    return wanted


def test_a_row_is_the_median_and_the_span_of_its_rounds():
    """One slow round does not move the median, and shows in the span."""
    ours = row("many", rows(Figure("many", "many"), many=[5.0, 1.0, 9.0, 6.0, 7.0]))
    assert (ours.median, ours.low, ours.high) == (6.0, 1.0, 9.0)
    assert ours.loop == "uvloop"


def test_a_figure_without_a_loop_says_so():
    """A bare socket runs on none, whatever asked it."""
    assert row("bare_publish", rows(bare_publish=[1.0])).loop == "-"


def test_a_ratio_is_taken_within_a_round():
    """A machine that is slow for a round is slow for both."""
    assert ratio([50.0, 5.0, 60.0], [100.0, 10.0, 100.0]) == 0.5
    assert ratio([50.0, 70.0, 60.0], [100.0]) == 0.6


@pytest.mark.parametrize(
    ("bar", "values", "verdict"),
    [
        (Bar(0.65, of="bare_publish"), [65.0, 65.0], "met"),
        (Bar(0.65, of="bare_publish"), [64.0, 64.0], "below"),
        (Bar(2.5, of="bare_publish", at_most=True), [250.0, 250.0], "met"),
        (Bar(2.5, of="bare_publish", at_most=True), [251.0, 251.0], "below"),
        (Bar(60, at_most=True), [60.0, 60.0], "met"),
        (Bar(60, at_most=True), [61.0, 61.0], "below"),
        (Bar(12, of="faststream.publish_one"), [1.0, 1.0], "not measured"),
    ],
    ids=str,
)
def test_a_bar_is_met_or_not(bar, values, verdict):
    """By the figure itself, or by its ratio to another; what was not measured is not called met."""
    found = row("ours", rows(Figure("ours", "ours", bars=(bar,)), ours=values, bare_publish=[100.0, 100.0]))
    assert [comparison.verdict for comparison in found.comparisons] == [verdict]
    assert exit_code([found]) == (verdict == "below")


def test_one_figure_below_its_bar_ends_with_1():
    """However many are above theirs."""
    good = Figure("good", "good", bars=(Bar(1),))
    bad = Figure("bad", "bad", bars=(Bar(1), Bar(3)))
    assert exit_code(rows(good, good=[2.0])) == 0
    assert exit_code(rows(good, bad, good=[2.0], bad=[2.0])) == 1


def test_what_is_below_is_red_or_marked_with_a_word():
    """On a terminal, and without one; what is not below is neither."""
    found = rows(Figure("ours", "ours", bars=(Bar(3), Bar(1))), ours=[2.0])
    plain = lines(found, colours=False)
    assert [line.endswith("below") for line in plain] == [False, True, False]
    coloured = lines(found, colours=True)
    assert [line.startswith("\x1b[31m") and line.endswith("\x1b[0m") for line in coloured] == [False, True, False]
    assert not any("below" in line for line in coloured)


def test_the_table_says_all_of_a_figure():
    """Question, figure, span, ratio, bar and loop, in text and in Markdown."""
    ours = Figure("ours", "publish_many", bars=(Bar(0.65, of="bare_publish"),))
    found = rows(ours, ours=[200_000.0, 400_000.0, 300_000.0], bare_publish=[400_000.0] * 3)
    for shown in (lines(found, colours=False), markdown(found)):
        (line,) = [line for line in shown if "publish_many" in line]
        for part in ("300,000 events/s", "200,000..400,000", "0.75 x bare socket", "at least 0.65", "uvloop"):
            assert part in line


@pytest.mark.parametrize(
    ("value", "shown"), [(300_000.4, "300,000"), (0.2345, "0.234"), (14.26, "14.3"), (123.4, "123"), (0.0, "0")]
)
def test_numbers_have_as_many_digits_as_count(value, shown):
    """Three, and thousands apart."""
    assert number(value) == shown


def test_the_chart_is_well_formed_and_stays_within_its_edges():
    """A bar for what was measured, titles with any signs in them, and no drawing over the edge."""
    figures = [
        Figure("publish_many", 'publish "many" <500> & more'),
        Figure("peer.publish_one", "a peer"),
        Figure("idle_worker", "not drawn"),
    ]
    found = rows(
        *figures, bare_publish=[6e5, 7e5], publish_many=[4e5], **{"peer.publish_one": [8e3]}, idle_worker=[1.0]
    )
    drawn = ET.fromstring(chart(found, "AMD & sons"))
    width = float(drawn.attrib["viewBox"].split()[2])
    bars = [one for one in drawn.iter() if one.tag.endswith("rect")]
    assert [one.attrib["class"] for one in bars] == ["bare", "ours", "peer"]
    assert all(float(one.attrib["x"]) + float(one.attrib["width"]) < width for one in bars)
    texts = [one.text or "" for one in drawn.iter() if one.tag.endswith("text")]
    assert figures[0].title in texts
    assert "not drawn" not in texts
    assert "AMD & sons" in texts[-1]


def test_results_are_written_and_those_of_the_quick_form_beside_them(tmp_path):
    """What a minute gives does not replace what was measured for longer."""
    found = rows(Figure("ours", "ours"), ours=[1.0, 2.0, 3.0])
    write(found, DEFAULT, {"cpu": "c", "cores": "2", "server": "s", "python": "p", "loop": "l", "date": "d"}, tmp_path)
    write(found, QUICK, {"cpu": "c", "cores": "2", "server": "s", "python": "p", "loop": "l", "date": "d"}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "latest.svg", "quick.json", "quick.svg"]
    latest = json.loads((tmp_path / "latest.json").read_text())
    assert latest["form"] == "default"
    assert latest["machine"]["cores"] == "2"
    assert latest["rows"][0]["rounds"] == [1.0, 2.0, 3.0]
