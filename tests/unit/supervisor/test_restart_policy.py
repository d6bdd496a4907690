"""When a process is started again: properties that hold for any history of deaths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hyperbus.supervisor.restart_policy import HEALTHY, MOST_DEATHS, RestartPolicy, RestartState

lives = st.floats(min_value=0, max_value=3 * HEALTHY)
deaths = st.lists(st.tuples(lives, st.booleans()), max_size=30)


@given(deaths)
def test_only_deaths_in_a_row_make_a_crash_loop(history: list[tuple[float, bool]]) -> None:
    """A crash loop is exactly that many blamed deaths since the last healthy life."""
    state, in_a_row = RestartState(RestartPolicy()), 0
    for lived, blameless in history:
        state = state.after_death(lived, blameless=blameless)
        if not blameless:
            in_a_row = 1 if lived >= HEALTHY else in_a_row + 1
        assert state.is_crash_loop == (in_a_row >= MOST_DEATHS)


@given(deaths)
def test_pauses_grow_and_are_bounded(history: list[tuple[float, bool]]) -> None:
    """No pause is shorter than the one before it in the same row, none is nothing, none is long."""
    state = RestartState(RestartPolicy())
    for lived, blameless in history:
        following = state.after_death(lived, blameless=blameless)
        assert 0 < following.pause <= 5
        assert lived >= HEALTHY or following.pause >= state.pause
        state = following


def test_an_entry_that_kills_its_process_is_found_out_before_that_is_a_crash_loop() -> None:
    """It takes four deaths, which may all be short; none of the first five keeps others waiting for over a second."""
    state = RestartState(RestartPolicy())
    for _ in range(5):
        state = state.after_death(0.2)
        assert state.pause <= 1
        assert not state.is_crash_loop
    assert MOST_DEATHS >= 10


def test_deaths_that_are_the_servers_fault_neither_count_nor_keep_others_waiting() -> None:
    """However many: the process that follows waits for the server, and has to be there when it serves again."""
    state = RestartState(RestartPolicy())
    for _ in range(100):
        state = state.after_death(0.2, server_at_fault=True)
        assert state.pause <= 1
        assert not state.is_crash_loop
    assert state.after_death(0.2).deaths == 1


def test_a_death_by_the_server_shortens_no_pause() -> None:
    """A process that kept dying by itself goes on waiting as long."""
    state = RestartState(RestartPolicy())
    for _ in range(8):
        state = state.after_death(0.2)
    assert state.after_death(0.2, server_at_fault=True).pause == state.pause


def test_pauses_are_these() -> None:
    """By value: who waits for a restart knows how long, and one that lived long begins at the shortest again."""
    state, pauses = RestartState(RestartPolicy()), []
    for _ in range(9):
        state = state.after_death(0.2)
        pauses.append(round(state.pause, 3))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert (state.deaths, state.is_crash_loop) == (9, False)
    assert state.after_death(0.2).is_crash_loop
    healthy = state.after_death(HEALTHY)
    assert (healthy.deaths, healthy.in_a_row, healthy.pause) == (1, 1, 0.1)
    assert not state.after_death(HEALTHY - 0.1, blameless=True).is_crash_loop
    assert RestartState(RestartPolicy()).pause == 0.1
