"""An entry is acked only when its dead letter is stored: however many fields it has, and whatever lies where it goes."""

from __future__ import annotations

import pytest

from hyperbus.errors import HyperbusError
from hyperbus.transport import DeadLetter, Parked
from hyperbus.transports.keys import dead_letter_key
from tests.conformance.harness import Harness

MANY = [1_990, 2_000, 5_000, 30_000]


def fields_of(count: int) -> list[bytes]:
    return [part for n in range(count) for part in (b"f%d" % n, b"\xff%d" % n)]


def letter(entry_id: bytes, fields: list[bytes]) -> DeadLetter:
    return DeadLetter(entry_id, fields, "undecodable", "DecodeError", "no", "trace", 1, 1.5, 2.5)


@pytest.mark.parametrize("count", MANY)
async def test_a_dead_letter_of_many_fields_is_stored(harness: Harness, count: int) -> None:
    """Every one of them, byte for byte; a neighbour in the same call too."""
    stream, ids = await harness.delivered(3)
    letters = [letter(ids[0], [b"a", b"1"]), letter(ids[1], fields_of(count)), letter(ids[2], [b"b", b"2"])]
    assert await harness.streams.dead_letter(stream, "g", "c1", letters) == [True, True, True]
    found = [read for _, read in await harness.streams.dead_letters(stream, "g")]
    assert sorted(found) == sorted(letters)
    assert await harness.streams.pending(stream, "g") == []


@pytest.mark.parametrize("count", MANY)
async def test_one_that_lost_its_entry_leaves_no_letter(harness: Harness, count: int) -> None:
    """Whoever owns it decides; it stays pending with that one."""
    stream, ids = await harness.delivered(1)
    assert await harness.streams.dead_letter(stream, "g", "c2", [letter(ids[0], fields_of(count))]) == [False]
    assert await harness.streams.dead_letters(stream, "g") == []
    assert [entry.consumer for entry in await harness.streams.pending(stream, "g")] == ["c1"]


@pytest.mark.parametrize("count", [1, *MANY])
async def test_what_cannot_be_stored_is_not_acked(harness: Harness, count: int) -> None:
    """Something else lies there, or the stream has given out its last id."""
    stream, ids = await harness.delivered(1)
    wanted = letter(ids[0], fields_of(count))
    harness.place.set_value(dead_letter_key(stream, "g"), b"a value")
    with pytest.raises(HyperbusError):
        await harness.streams.dead_letter(stream, "g", "c1", [wanted])
    assert len(await harness.streams.pending(stream, "g")) == 1


@pytest.mark.parametrize("count", [1, *MANY])
async def test_parked_ones_are_moved_as_well(harness: Harness, count: int) -> None:
    """And stay parked where they are another one's."""
    stream, ids = await harness.delivered(1)
    fields = fields_of(count)
    now = await harness.records.server_time()
    await harness.streams.park(stream, "g", "c1", [Parked(ids[0], fields, 1, 1.5, now - 1)])
    (taken,) = await harness.streams.take_parked(stream, "g", "h", now=now, lease=60, count=10)
    assert taken.fields == fields
    assert await harness.streams.dead_letter_parked(stream, "g", "other", [letter(ids[0], fields)]) == [False]
    assert await harness.streams.dead_letters(stream, "g") == []
    assert await harness.streams.parked_count([(stream, "g")]) == [1]
    assert await harness.streams.dead_letter_parked(stream, "g", "h", [letter(ids[0], fields)]) == [True]
    ((_, read),) = await harness.streams.dead_letters(stream, "g")
    assert read == letter(ids[0], fields)
    assert await harness.streams.parked_count([(stream, "g")]) == [0]
