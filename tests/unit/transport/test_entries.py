"""The pure parts of the storage contract: ids, and how durable an append is to be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbus.errors import InvalidSettingError
from hyperbus.transport import FIRST_ID, Durability, id_after, id_at, id_before, id_key

HALVES = st.one_of(st.integers(0, 3), st.integers(2**64 - 3, 2**64 - 1), st.integers(0, 2**64 - 1))
IDS = st.tuples(HALVES, HALVES).map(lambda halves: b"%d-%d" % halves)


@given(IDS)
def test_there_is_no_id_between_one_and_its_neighbours(entry_id: bytes) -> None:
    """The one before comes right before, and the one after right after."""
    assert id_key(id_before(entry_id)) < id_key(entry_id) or entry_id == FIRST_ID
    assert id_key(entry_id) < id_key(id_after(entry_id))
    assert id_before(id_after(entry_id)) == entry_id
    assert id_after(id_before(entry_id)) == entry_id or entry_id == FIRST_ID


def test_ids_carry_between_their_halves() -> None:
    """The sequence has 64 bits."""
    assert id_before(b"5-0") == b"4-18446744073709551615"
    assert id_after(b"4-18446744073709551615") == b"5-0"
    assert id_before(FIRST_ID) == FIRST_ID


def test_ids_compare_as_numbers() -> None:
    """Not as text, and a bare time is the first id of its millisecond."""
    assert sorted([b"10-0", b"9-10", b"9-9"], key=id_key) == [b"9-9", b"9-10", b"10-0"]
    assert id_key(b"7") == (7, 0)


def test_an_id_is_made_of_a_time() -> None:
    """In whole milliseconds, and never below the first."""
    assert id_at(1_700_000_000.1239) == b"1700000000123-0"
    assert id_at(-5.0) == FIRST_ID


@pytest.mark.parametrize("options", [{}, {"replicas": -1, "disk": True}, {"replicas": 1, "timeout": 0}])
def test_a_durability_that_waits_for_nothing_is_refused(options: dict[str, float]) -> None:
    """It would say yes without having looked."""
    with pytest.raises(InvalidSettingError, match="waits for nothing"):
        Durability(**options)  # type: ignore[arg-type]
