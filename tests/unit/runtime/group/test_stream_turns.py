"""Of very many streams all come round, and those where something happens often."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbus.runtime.group.stream_turns import LEAST, LIVELY, MANY, PAGE, WAIT, StreamTurns, Turn
from hyperbus.transport import Page

NAMES = tuple(f"events:s{number}" for number in range(3 * MANY + 7))


def had(turns: StreamTurns, names: Sequence[str], now: float) -> None:
    """Let these have had an entry each, of two that were asked for."""
    read = [(name, Page([(b"1-0", [b"data", b"x"])])) for name in names]
    turns.answered(Turn(tuple(names), 0.0), names, 2, read, now)


def test_few_streams_are_all_named_and_a_read_may_wait() -> None:
    """As if there were no turns."""
    turns = StreamTurns()
    assert turns.next(NAMES[:MANY], 1.0) == (NAMES[:MANY], None, False)
    assert turns.share(NAMES[:MANY], 1.0) == NAMES[:MANY]


def test_every_stream_comes_round() -> None:
    """A page at a time, so far apart that nothing spins; and a read waits where there is nothing lively."""
    turns, asked, now = StreamTurns(), set(), 0.0
    for _ in range(4):
        names, wait, _ = turns.next(NAMES, now)
        assert (len(names) <= MANY, wait) == (True, WAIT)
        asked |= set(names)
        now += WAIT
    assert asked == set(NAMES)


def test_what_is_expected_comes_first_and_what_had_something_stays() -> None:
    """Without a wait while more is expected; then with one, between two pages of the others."""
    turns = StreamTurns()
    new = NAMES[: PAGE + 1]
    turns.expect(new)
    assert turns.next(NAMES, 0.0) == (new[:PAGE], 0.0, True)
    assert turns.next(NAMES, 0.0) == (new[PAGE:], 0.0, True)
    assert turns.next(NAMES, 0.0).names == NAMES[:MANY]
    lively, wait, _ = turns.next(NAMES, 0.0)
    assert (set(lively), wait) == (set(new[1:]), WAIT)
    had(turns, [NAMES[-1]], 1.0)
    assert NAMES[-1] in turns.next(NAMES, 1.0).names + turns.next(NAMES, 1.0).names


def test_what_has_been_quiet_is_named_by_turns_only() -> None:
    """And no more are lively than fit into one read."""
    turns = StreamTurns()
    had(turns, NAMES[:2], 0.0)
    turns.next(NAMES, LIVELY - 1)
    assert turns.next(NAMES, LIVELY - 1).names == NAMES[:2]
    had(turns, NAMES[1:2], LIVELY - 1)
    turns.next(NAMES, LIVELY + 1)
    had(turns, NAMES[5:6], LIVELY + 1)
    assert turns.next(NAMES, LIVELY + 1).names == (NAMES[1], NAMES[5])
    had(turns, NAMES[: 2 * PAGE], LIVELY + 1)
    assert len(turns.next(NAMES, LIVELY + 1).names) <= PAGE


def test_what_is_gone_is_not_named() -> None:
    """Nor one that is set aside: the whole read would fail."""
    turns = StreamTurns()
    had(turns, NAMES[:2], 0.0)
    turns.expect([*NAMES[2:4], "events:gone"])
    left = NAMES[1:2] + NAMES[3:]
    assert turns.next(left, 0.0).names == NAMES[3:4]
    turns.next(left, 0.0)
    assert turns.next(left, 0.0).names == (NAMES[1], NAMES[3])


def test_what_is_looked_at_now_and_then_is_the_lively_and_a_page() -> None:
    """All of them come round."""
    turns = StreamTurns()
    had(turns, [NAMES[-1]], 0.0)
    parts = [turns.share(NAMES, 0.0) for _ in range(4)]
    assert all(NAMES[-1] in part and len(part) <= MANY + PAGE for part in parts)
    assert set().union(*parts) == set(NAMES)


def test_what_may_have_more_is_asked_again_and_what_was_not_asked_too() -> None:
    """And no more are named than may bring what is wanted, but for a few."""
    turns = StreamTurns()
    turns.expect(NAMES[:100])
    turn = turns.next(NAMES, 0.0, room=1)
    assert turn == (NAMES[:LEAST], 0.0, True)
    full = [(NAMES[0], Page([(b"1-0", [b"data", b"x"])] * 2))]
    turns.answered(turn, NAMES[:5], 2, full, 0.0)
    assert set(turns.next(NAMES, 0.0).names) == {NAMES[0], *NAMES[5:100]}
