"""What the demo makes of metrics, groups and counts. No processes, no server."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hyperbus.bus import Bus
from hyperbus.cli.demo.agents import Agents
from hyperbus.cli.demo.showing import Glance, Screen, Summary
from hyperbus.cli.demo.watching import (
    Groups,
    Seen,
    count_rows,
    fetch_metrics,
    look_at_groups,
    quantile,
    read_metrics,
    together,
)
from hyperbus.clock import SystemClock

EVEN = Summary(
    seconds=2.0, published=10, rows=10, counted=10, received=10, lost=0, pending=0, dead_letters=0, retries=1,
    uncertain=0, p50=0.001, p99=None,
)  # fmt: skip


def test_the_ends_agree_when_all_four_counts_are_equal():
    """A retry is no disagreement."""
    assert EVEN.agrees
    assert EVEN.as_dict()["rate"] == 5.0
    assert "Both ends agree" in EVEN.lines()[-1]


@pytest.mark.parametrize("name", ["published", "rows", "counted", "received"])
def test_one_count_that_differs_is_a_disagreement(name):
    """Whichever it is."""
    summary = replace(EVEN, **{name: 11})
    assert not summary.agrees
    assert "NOT" in summary.lines()[-1]


@pytest.mark.parametrize("name", ["lost", "pending", "dead_letters", "uncertain"])
def test_anything_left_over_is_a_disagreement(name):
    """Even when the counts are equal."""
    assert not replace(EVEN, **{name: 1}).agrees


def test_metrics_are_added_up_over_types_and_groups():
    """Only acked deliveries count as handled."""
    text = """
# TYPE hyperbus_events_total counter
hyperbus_events_total{type="a"} 3
hyperbus_events_total{type="b"} 4
# TYPE hyperbus_retries_total counter
hyperbus_retries_total{group="g"} 1
# TYPE hyperbus_deliveries_total counter
hyperbus_deliveries_total{group="g",type="a",outcome="acked"} 3
hyperbus_deliveries_total{group="g",type="b",outcome="acked"} 4
hyperbus_deliveries_total{group="g",type="b",outcome="retried"} 1
# TYPE hyperbus_latency_seconds histogram
hyperbus_latency_seconds_bucket{group="g",le="0.01"} 5
hyperbus_latency_seconds_bucket{group="g",le="+Inf"} 7
"""
    seen = read_metrics(text_string_to_metric_families(text))
    assert seen == Seen(7, 1, {"g": 7}, {"g": {0.01: 5.0, float("inf"): 7.0}})


async def test_metrics_of_nobody_are_none():
    """A supervisor that does not answer is shown as nothing."""
    assert await fetch_metrics(1) == Seen()


@pytest.mark.parametrize(
    ("buckets", "share", "value"),
    [
        ({}, 0.5, None),
        ({1.0: 0.0, float("inf"): 0.0}, 0.5, None),
        ({1.0: 10.0, 2.0: 10.0, float("inf"): 10.0}, 0.5, 0.5),
        ({1.0: 0.0, 2.0: 10.0, float("inf"): 10.0}, 0.5, 1.5),
        ({1.0: 5.0, 2.0: 5.0, float("inf"): 10.0}, 0.99, 2.0),
    ],
)
def test_a_quantile_lies_within_its_bucket(buckets, share, value):
    """Linear within a bucket; the last bound where the bucket has none."""
    assert quantile(buckets, share) == value


def test_buckets_of_groups_are_added_up():
    """Bound by bound."""
    assert together([{1.0: 2.0}, {1.0: 3.0, 2.0: 4.0}]) == {1.0: 5.0, 2.0: 4.0}


async def test_groups_are_summed_over_streams():
    """Lag and pending entries by group, dead letters over all groups; settled means that nothing is left."""
    async with Bus("memory://") as bus:
        streams = bus.transport.streams
        assert not (await look_at_groups(bus.transport, "events")).settled
        await streams.create_groups([("events:a", "g", b"0-0"), ("events:b", "g", b"0-0")])
        assert (await look_at_groups(bus.transport, "events")).settled


def test_settled_means_neither_lag_nor_pending():
    """Either of them is work that is left."""
    assert Groups({"g": 0}, {"g": 0}, 0).settled
    assert not Groups({"g": 1}, {"g": 0}, 0).settled
    assert not Groups({"g": 0}, {"g": 1}, 0).settled


def test_rows_are_counted_in_the_file(tmp_path):
    """A database that is not there yet has none."""
    database = tmp_path / "demo.db"
    assert count_rows(database) == 0
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE workflow_updates (event_id TEXT)")
    connection.execute("INSERT INTO workflow_updates VALUES ('a'), ('b')")
    connection.commit()
    connection.close()
    assert count_rows(database) == 2


async def test_agents_remember_each_event_that_was_stored():
    """At about the rate that was asked for, in whole workflows' order, and with one hard audit."""
    async with Bus("memory://") as bus:
        agents = Agents(bus, SystemClock(), 2000)
        await agents.run(0.5)
        infos = await bus.transport.streams.info(await bus.transport.streams.scan("events:*"))
        assert agents.published == len(agents.ids) == sum(info.length for info in infos if info is not None) > 200
        assert (agents.uncertain, agents.refused) == (0, 0)


def test_a_screen_that_is_quiet_shows_nothing(capsys):
    """With --json only the summary is printed."""
    screen = Screen(quiet=True)
    screen.say("a line")
    screen.show(Glance(1.0, 1, 1, 1.0, {}, Seen(), Groups({}, {}, 0)))
    screen.close()
    assert capsys.readouterr().out == ""


def test_a_screen_without_a_terminal_shows_lines(capsys):
    """One a glance."""
    Screen(quiet=False).show(Glance(1.0, 1234, 1200, 617.0, {}, Seen(), Groups({"g": 3}, {"g": 4}, 0)))
    shown = capsys.readouterr().out
    assert " ".join(shown.split()) == "1 s published 1,234 (617/s) socket 1,200 lag 3 pending 4"
