"""How many deliveries a worker begins soon, by what its handlers took lately: pure, with a clock that a test sets."""

from __future__ import annotations

from typing import cast

import pytest

from hyperbus.clock import Clock
from hyperbus.runtime.in_flight.pace import LATELY, SOON, Pace


class Working:
    """A clock that stands, and lanes of which a test says how many are busy."""

    def __init__(self, concurrency: int = 1, batch: int = 1) -> None:
        self.now = 100.0
        self.busy = concurrency
        self.pace = Pace(self, cast("Clock", self), concurrency=concurrency, batch=batch)

    def monotonic(self) -> float:
        return self.now

    def count(self) -> int:
        return self.busy

    def work(self, seconds: float, *, takes: float, at_once: int = 1) -> None:
        """Let time go by in which so many deliveries end together, each time after as long as they take."""
        for _ in range(round(seconds / takes)):
            self.now += takes
            self.pace.ended += at_once
            self.pace.within(SOON)


def test_nothing_is_known_before_something_has_ended() -> None:
    """So only what can begin at once is wanted."""
    here = Working(concurrency=8, batch=10)
    here.busy = 3
    assert (here.pace.free(), here.pace.within(SOON)) == (50, 0)


@pytest.mark.parametrize(
    ("takes", "concurrency", "batch", "expected"),
    [(0.001, 1, 1, 100), (0.05, 1, 1, 2), (0.05, 8, 1, 16), (0.05, 1, 10, 20), (0.2, 1, 1, 0), (1.0, 64, 1, 6)],
)
def test_as_many_begin_soon_as_ended_in_such_a_time(takes: float, concurrency: int, batch: int, expected: int) -> None:
    """For one lane, for many, and for batches; of what takes longer than that, none for each lane."""
    here = Working(concurrency, batch)
    here.work(20 * max(takes, LATELY), takes=takes, at_once=concurrency * batch)
    assert here.pace.within(SOON) == pytest.approx(expected, rel=0.4, abs=1)


def test_the_pace_falls_while_nothing_ends() -> None:
    """Handlers that were quick and turn slow begin nothing soon, long before the first of them has ended."""
    here = Working()
    here.work(0.5, takes=0.001)
    assert here.pace.within(SOON) > 50
    here.now += 2 * SOON
    assert here.pace.within(SOON) == 0


def test_batches_that_take_as_long_as_always_make_no_worker_slow() -> None:
    """While one runs nothing ends, and then as much as it holds."""
    here = Working(batch=10)
    here.work(20 * LATELY, takes=0.05, at_once=10)
    here.now += 0.05
    assert here.pace.within(SOON) > 7


def test_time_in_which_there_was_nothing_to_do_does_not_count() -> None:
    """An idle hour makes no worker slow."""
    here = Working()
    here.work(0.5, takes=0.001)
    before = here.pace.within(SOON)
    here.pace.rested = here.now
    here.now += 3600.0
    here.busy = 0
    here.pace.resume()
    assert here.pace.within(SOON) == before


def test_a_few_quick_ones_do_not_speak_for_a_thousand() -> None:
    """What may wait grows with what has ended."""
    here = Working()
    here.work(0.002, takes=0.001)
    assert 0 < here.pace.within(SOON) <= 8
