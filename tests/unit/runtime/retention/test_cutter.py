"""Cutting the oldest entries of a stream, and counting what goes unread."""

from __future__ import annotations

import pytest

from hyperbus.runtime.retention.cutter import LEAST, PAGE, Cutter, Watched
from hyperbus.runtime.retention.trimmer import LAST_ID
from tests.unit.runtime.retention.cutting import STREAM, Cutting

FOR_EVER = float("inf")


def cutter(place: Cutting) -> Cutter:
    return Cutter(place.transport.streams, place.clock)


async def test_everything_up_to_an_id_goes_page_by_page() -> None:
    place = Cutting()
    ids = await place.begin(2 * PAGE + 10)
    cut, missed = await cutter(place).cut(STREAM, up_to=ids[-2], count=None, until=FOR_EVER, watched=[])
    assert (cut, missed, await place.left()) == (2 * PAGE + 9, {}, 1)
    assert len(place.transport.streams.called("trim")) == 3


async def test_a_number_of_entries_goes_but_what_is_too_few_to_cut_by_number() -> None:
    place = Cutting()
    await place.begin(PAGE + 2 * LEAST)
    wanted = PAGE + LEAST + 1
    cut, _ = await cutter(place).cut(STREAM, up_to=LAST_ID, count=wanted, until=FOR_EVER, watched=[])
    assert wanted - LEAST < cut <= wanted


async def test_it_ends_when_its_time_is_up() -> None:
    """With the page that has begun: others have their turn."""
    place = Cutting()
    await place.begin(3 * PAGE)
    cut, _ = await cutter(place).cut(STREAM, up_to=LAST_ID, count=None, until=place.clock.time, watched=[])
    assert cut == PAGE


async def test_what_each_group_had_not_acked_is_counted() -> None:
    """More pending entries than are looked at at a time, in more than one page; and those that were not read."""
    place = Cutting()
    ids = await place.begin(PAGE + 3_000, "pending", "unread", "done")
    held = await place.read("pending", PAGE + 2_000, ack=False)
    await place.streams.ack([(STREAM, "pending", held[:100])])
    await place.read("done", PAGE + 3_000)
    watched = [
        Watched("pending", held[-1], is_there=True),
        Watched("unread", b"0-0", is_there=True),
        Watched("done", ids[-1], is_there=True),
        Watched("gone", ids[999], is_there=False),
    ]
    cut, missed = await cutter(place).cut(STREAM, up_to=ids[-2], count=None, until=FOR_EVER, watched=watched)
    assert cut == PAGE + 2_999
    assert missed == {"pending": cut - 100, "unread": cut, "gone": cut - 1_000}


@pytest.mark.parametrize("up_to", ["last", "beyond"])
async def test_an_id_is_found_by_how_many_entries_there_are_up_to_it(up_to: str) -> None:
    """About as many as were asked for, and never more."""
    place = Cutting()
    ids = await place.begin(900)
    found = await cutter(place).id_of(STREAM, ids[0], LAST_ID if up_to == "beyond" else ids[-1], 300)
    assert found is not None
    assert 294 <= await place.streams.count_between(STREAM, b"0-0", found, 1_000) <= 300


async def test_no_id_is_found_where_the_first_would_be_too_many() -> None:
    place = Cutting()
    ids = await place.begin(5)
    assert await cutter(place).id_of(STREAM, ids[0], ids[-1], 0) is None


async def test_a_stream_that_is_empty_loses_nothing() -> None:
    place = Cutting()
    ids = await place.begin(2, "g")
    await place.streams.trim(STREAM, up_to=ids[-1], limit=10)
    watched = [Watched("g", b"0-0", is_there=True)]
    assert await cutter(place).cut(STREAM, up_to=ids[-1], count=None, until=FOR_EVER, watched=watched) == (0, {})
