"""How much of a stream its bounds allow."""

from __future__ import annotations

import math

import pytest

from hyperbus.event.retention import Keep
from hyperbus.runtime.retention.stream_view import PENDING_BYTES, StreamView
from hyperbus.transport import GroupInfo, StreamInfo


def view(*, length: int, weight: int | None, pending: tuple[int, ...] = ()) -> StreamView:
    """Return a stream that weighs so much."""
    groups = [GroupInfo(f"g{number}", 1, count, 0, b"1-0") for number, count in enumerate(pending)]
    return StreamView(StreamInfo("events:a", length, groups), b"1-0", weight, Keep())


def test_what_is_pending_in_any_group_is_not_weighed_as_entries() -> None:
    seen = view(length=100, weight=100_000 + 50 * PENDING_BYTES, pending=(20, 30))
    assert seen.pending == 50
    assert seen.entry_bytes == 1_000


@pytest.mark.parametrize(("length", "weight"), [(0, 100), (10, None)])
def test_nothing_is_known_of_entries_without_a_weight_or_without_any(length: int, weight: int | None) -> None:
    assert view(length=length, weight=weight).entry_bytes is None


def test_an_entry_weighs_something() -> None:
    """Where the pending lists weigh less than was thought."""
    assert view(length=100, weight=100, pending=(100,)).entry_bytes == 1.0


@pytest.mark.parametrize(
    ("entries", "size", "weight", "most"),
    [
        (None, None, 1_000, math.inf),
        (7, None, 1_000, 7),
        (None, 500, 1_000, 5),
        (7, 500, 1_000, 5),
        (3, 500, 1_000, 3),
        (7, 500, None, 7),
        (None, 500, None, math.inf),
    ],
)
def test_the_narrower_of_two_bounds_counts(
    entries: int | None, size: int | None, weight: int | None, most: float
) -> None:
    """Of ten entries that weigh 100 bytes each; a weight that is not known bounds nothing."""
    assert view(length=10, weight=weight).most(entries, size) == most
