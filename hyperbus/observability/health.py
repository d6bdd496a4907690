"""Healthy and ready, decided from what is known of the processes. Pure: states in, status and JSON out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from hyperbus.clock import Seconds

#: The content type of the answers.
CONTENT_TYPE = "application/json"
#: A process that was not heard of for this long counts as hung.
STALE_AFTER: Seconds = 10.0


@dataclass(frozen=True, slots=True)
class ProcessState:
    """What is known of a worker process. `last_seen` is a monotonic time; `failing` what fails in its background."""

    pid: int
    ready: bool
    connected: bool
    last_seen: float
    failing: tuple[str, ...] = ()


def healthz(states: Sequence[ProcessState], *, now: float, stale_after: Seconds = STALE_AFTER) -> tuple[int, bytes]:
    """Tell whether every process is alive: 200, else 503. A lost server does not count: a restart would not help."""
    problems = [_hung(state, now) for state in states if now - state.last_seen > stale_after]
    if not states:
        problems.append("no process runs")
    return _answer("healthy", problems, states, now)


def readyz(
    states: Sequence[ProcessState], *, now: float, expected: int = 1, stale_after: Seconds = STALE_AFTER
) -> tuple[int, bytes]:
    """Tell whether `expected` processes, and all that there are, take events: 200, else 503."""
    problems = []
    for state in states:
        if now - state.last_seen > stale_after:
            problems.append(_hung(state, now))
        elif not state.ready:
            problems.append(f"process {state.pid} is not ready yet")
        elif not state.connected:
            problems.append(f"process {state.pid} has no connection to the server")
        elif state.failing:
            problems.append(f"process {state.pid} has failed at: {', '.join(state.failing)}; see its log")
    if len(states) < expected:
        problems.append(f"{len(states)} of {expected} processes run")
    return _answer("ready", problems, states, now)


def _hung(state: ProcessState, now: float) -> str:
    return f"process {state.pid} was last seen {now - state.last_seen:.1f} s ago"


def _answer(good: str, problems: list[str], states: Sequence[ProcessState], now: float) -> tuple[int, bytes]:
    body = {
        "status": f"not {good}" if problems else good,
        "problems": problems,
        "processes": [
            {
                "pid": state.pid,
                "ready": state.ready,
                "connected": state.connected,
                "seen_seconds_ago": round(max(now - state.last_seen, 0.0), 3),
            }
            for state in states
        ],
    }
    return (503 if problems else 200), msgspec.json.encode(body)
