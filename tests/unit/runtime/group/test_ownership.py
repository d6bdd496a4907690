"""Until when a worker of an ordered group may read: never beside one that had the right just before."""

from __future__ import annotations

import pytest

from hyperbus.clock import SystemClock
from hyperbus.runtime.coordination.lease import Lease
from hyperbus.runtime.group.ownership import LEASE, Ownership
from hyperbus.transports.memory import MemoryTransport


class HandClock(SystemClock):
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 100.0

    def monotonic(self) -> float:  # type: ignore[override]
        return self.time


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def ownership(clock: HandClock) -> Ownership:
    return Ownership(Lease(MemoryTransport().records, "g", "me", LEASE), clock, ordered=True)


def confirmed(ownership: Ownership, clock: HandClock, *, others_pending: bool = False) -> bool:
    """Confirm the right now; tell whether it may read."""
    ownership.confirm(clock.time, others_pending=others_pending)
    return ownership.may_read_for(LEASE / 5)


def test_who_has_just_got_the_right_waits_for_the_read_of_who_had_it(ownership: Ownership, clock: HandClock) -> None:
    """That one may have begun it just before; then it reads for as long as it keeps the right, and no longer."""
    assert not ownership.may_read_for(0.0)
    assert not confirmed(ownership, clock)
    clock.time += LEASE * 0.9
    assert not confirmed(ownership, clock)
    clock.time += LEASE * 0.1
    assert confirmed(ownership, clock)
    clock.time += LEASE * 0.9
    assert not ownership.may_read_for(LEASE / 5)
    assert confirmed(ownership, clock)


def test_what_others_have_pending_comes_first(ownership: Ownership, clock: HandClock) -> None:
    """However long it takes; what is read already ends nothing that was allowed."""
    for _ in range(5):
        clock.time += LEASE
        assert not confirmed(ownership, clock, others_pending=True)
    assert confirmed(ownership, clock)


def test_the_right_that_was_lost_is_waited_for_anew(ownership: Ownership, clock: HandClock) -> None:
    """From the time at which it was got again."""
    confirmed(ownership, clock)
    clock.time += LEASE
    assert confirmed(ownership, clock)
    ownership.lose()
    assert not ownership.may_read_for(0.0)
    assert not confirmed(ownership, clock)
    clock.time += LEASE
    assert confirmed(ownership, clock)
