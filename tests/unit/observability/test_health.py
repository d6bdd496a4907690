"""Healthy and ready are decided from the states of the processes alone."""

from __future__ import annotations

import json

import pytest

from hyperbus.observability.health import ProcessState, healthz, readyz

GOOD = ProcessState(1, ready=True, connected=True, last_seen=100.0)


@pytest.mark.parametrize(
    ("states", "now", "healthy", "ready"),
    [
        ([GOOD], 101.0, 200, 200),
        ([], 101.0, 503, 503),
        ([GOOD], 111.0, 503, 503),
        ([GOOD, ProcessState(2, ready=False, connected=True, last_seen=100.0)], 101.0, 200, 503),
        ([GOOD, ProcessState(2, ready=True, connected=False, last_seen=100.0)], 101.0, 200, 503),
        ([GOOD, ProcessState(2, ready=True, connected=True, last_seen=80.0)], 101.0, 503, 503),
    ],
)
def test_status_follows_the_states(states: list[ProcessState], now: float, healthy: int, ready: int) -> None:
    """A hung process is unhealthy; one that starts, or lost the server, is only not ready."""
    assert (healthz(states, now=now)[0], readyz(states, now=now)[0]) == (healthy, ready)


def test_what_fails_in_the_background_is_not_ready_and_is_named() -> None:
    """A process that finds no new streams looked as well as ever."""
    state = ProcessState(7, ready=True, connected=True, last_seen=100.0, failing=("stream finder",))
    assert healthz([state], now=101.0)[0] == 200
    status, body = readyz([state], now=101.0)
    assert status == 503
    assert json.loads(body)["problems"] == ["process 7 has failed at: stream finder; see its log"]


def test_a_missing_process_is_not_ready() -> None:
    """Fewer processes than expected means that the set is not complete."""
    status, body = readyz([GOOD], now=101.0, expected=2)
    assert status == 503
    assert json.loads(body)["problems"] == ["1 of 2 processes run"]


def test_the_body_tells_about_each_process() -> None:
    """JSON with a status, the problems, and every process."""
    assert json.loads(healthz([GOOD], now=101.5)[1]) == {
        "status": "healthy",
        "problems": [],
        "processes": [{"pid": 1, "ready": True, "connected": True, "seen_seconds_ago": 1.5}],
    }
