"""Reads of many streams: cheap where all have much, quick where one has little, and nobody starves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbus.runtime.reading.read_planner import LEAST, OTHERS_EVERY, OVERSHOOT, Ask, ReadPlanner

BACKLOGS = st.lists(st.sampled_from([0, 1, 3, 40, 1_000]), min_size=1, max_size=120)
ROOMS = st.integers(1, 500)


class Streams:
    """Streams with backlogs, and a rota that reads them."""

    def __init__(self, backlogs: list[int]) -> None:
        self.left = {f"s{number}": backlog for number, backlog in enumerate(backlogs)}
        self.rota = ReadPlanner()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.left)

    def read(self, room: int) -> tuple[Ask, dict[str, int]]:
        """Do the next read; return it, and what came."""
        ask = self.rota.next(self.names, room)
        came = {name: min(self.left[name], ask.each) for name in ask.names if self.left[name]}
        for name, size in came.items():
            self.left[name] -= size
        self.rota.answered(ask, came)
        return ask, came


@given(BACKLOGS, ROOMS)
def test_everything_is_read_and_no_read_waits_before(backlogs: list[int], room: int) -> None:
    """A read that finds nothing, and may wait, comes only after the last entry; none is much larger than the room."""
    streams = Streams(backlogs)
    for _ in range(200_000):
        ask, came = streams.read(room)
        assert 0 < ask.each <= room
        assert sum(came.values()) <= max(room * OVERSHOOT, len(ask.names))
        assert set(ask.names) <= set(streams.names)
        if ask.waits and not came:
            break
    assert not any(streams.left.values())


@given(st.integers(1, 300), st.integers(LEAST, 500))
def test_a_quiet_stream_is_asked_every_few_reads(busy: int, room: int) -> None:
    """However many streams are behind, one that is not gets its turn among them."""
    streams = Streams([10**9] * busy + [0])
    for _ in range(3):
        streams.read(room)
    asked = [f"s{busy}" in streams.read(room)[0].names for _ in range(OTHERS_EVERY * 3)]
    assert all(any(asked[start : start + OTHERS_EVERY]) for start in range(len(asked) - OTHERS_EVERY))


@given(st.integers(1, 300), st.integers(LEAST, 500))
def test_streams_that_are_behind_get_the_same(busy: int, room: int) -> None:
    """None is asked twice before all were asked once."""
    streams = Streams([10**9] * busy)
    streams.read(room)
    counts = dict.fromkeys(streams.names, 0)
    for _ in range(4 * busy):
        for name in streams.read(room)[0].names:
            counts[name] += 1
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("busy", [11, 50, 500])
def test_a_stream_that_is_behind_is_worth_its_name(busy: int) -> None:
    """A read takes as much as there is room for, from few streams."""
    streams = Streams([10**9] * busy)
    streams.read(250)
    ask, _ = streams.read(250)
    assert ask.each >= LEAST
    assert len(ask.names) * ask.each == 250


def test_after_a_failure_all_are_asked() -> None:
    """What was known may be wrong."""
    streams = Streams([10**9] * 50)
    streams.read(250)
    assert len(streams.read(250)[0].names) < 50
    streams.rota.forget()
    assert streams.rota.next(streams.names, 250) == Ask(streams.names, 20, waits=True)


def test_more_streams_than_a_read_may_name_are_gone_round() -> None:
    """A few at a time, without a wait; and all of them, with one, once none had anything."""
    planner, names = ReadPlanner(), tuple("abcde")
    asked = []
    for _ in range(4):
        asked.append(ask := planner.next(names, 100, most=2))
        planner.answered(ask, {})
    assert asked == [
        Ask(("a", "b"), 1, waits=False),
        Ask(("c", "d"), 1, waits=False),
        Ask(("e", "a"), 1, waits=False),
        Ask(names, 1, waits=True),
    ]
    planner.answered(asked[-1], {"c": 1})
    assert not planner.next(names, 100, most=2).waits


def test_entries_that_are_large_are_asked_for_in_small_numbers_of_each_stream() -> None:
    """All streams together stay below what fits, but for one of each."""
    names = tuple(f"s{n}" for n in range(20))
    assert ReadPlanner().next(names, 64, fits=16).each == 1
    assert ReadPlanner().next(names, 64, fits=60).each == 3
    assert ReadPlanner().next(("one",), 64, most=10, fits=16).each == 10
