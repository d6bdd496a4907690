"""Entries that wait outside the pending list."""

from __future__ import annotations

import asyncio

import pytest

from hyperbus.errors import GroupNotFoundError, WrongTypeError
from hyperbus.transport import DeadLetter, Parked
from hyperbus.transports.keys import dead_letter_key, parked_key
from tests.conformance.harness import Harness

NOW = 1_800_000_000.5
FIELDS = [b"data", bytes(range(256)), b"", b"\xff"]


def parked(entry_id: bytes, due: float = NOW, fields: list[bytes] | None = None) -> Parked:
    return Parked(entry_id, FIELDS if fields is None else fields, 3, NOW - 100.125, due)


def letter(entry_id: bytes) -> DeadLetter:
    return DeadLetter(entry_id, FIELDS, "exhausted", "E", "m", "t", 8, NOW - 100, NOW)


async def take(harness: Harness, stream: str, holder: str = "h1", now: float = NOW, count: int = 10) -> list[Parked]:
    return await harness.streams.take_parked(stream, "g", holder, now=now, lease=10, count=count)


async def parked_stream(harness: Harness, *dues: float) -> tuple[str, list[bytes]]:
    """Return a stream with an entry parked for each due time."""
    stream, ids = await harness.delivered(len(dues))
    entries = [parked(entry_id, due) for entry_id, due in zip(ids, dues, strict=True)]
    assert await harness.streams.park(stream, "g", "c1", entries) == [True] * len(dues)
    return stream, ids


@pytest.mark.parametrize("fields", [FIELDS, [], [b"a", b"1", b"a", b"2"]], ids=["binary", "deleted", "repeated"])
async def test_a_parked_entry_keeps_every_byte_and_is_acked(harness: Harness, fields: list[bytes]) -> None:
    """What is taken is what was parked."""
    stream, ids = await harness.delivered(1)
    written = parked(ids[0], fields=fields)
    assert await harness.streams.park(stream, "g", "c1", [written]) == [True]
    assert await harness.streams.pending(stream, "g") == []
    assert await take(harness, stream) == [written]


async def test_parking_needs_the_owner(harness: Harness) -> None:
    """Who lost the entry, or parks it twice, parks nothing."""
    stream, ids = await harness.delivered(2)
    await harness.streams.claim(stream, "g", "c2", [ids[0]], owner="c1")
    entries = [parked(entry_id) for entry_id in (*ids, ids[1], b"1-1")]
    assert await harness.streams.park(stream, "g", "c1", entries) == [False, True, False, False]
    assert [entry.id for entry in await harness.streams.pending(stream, "g")] == [ids[0]]
    assert [entry.entry_id for entry in await take(harness, stream)] == [ids[1]]


async def test_only_what_is_due_is_taken_earliest_first(harness: Harness) -> None:
    """At most as many as asked for, and what is not due waits."""
    stream, ids = await parked_stream(harness, NOW - 1, NOW + 1, NOW - 2, NOW)
    assert [entry.entry_id for entry in await take(harness, stream, count=2)] == [ids[2], ids[0]]
    assert [entry.entry_id for entry in await take(harness, stream)] == [ids[3]]
    assert await take(harness, stream) == []
    assert [entry.due for entry in await take(harness, stream, now=NOW + 1)] == [NOW + 1]


async def test_what_is_taken_is_hidden_until_its_lease_is_over(harness: Harness) -> None:
    """Then another may take it, and it says when it was due at first."""
    stream, ids = await parked_stream(harness, NOW)
    await take(harness, stream, "h1")
    assert await take(harness, stream, "h2", now=NOW + 9.9) == []
    assert [(entry.entry_id, entry.due) for entry in await take(harness, stream, "h2", now=NOW + 10)] == [(ids[0], NOW)]


async def test_each_entry_is_taken_by_one(harness: Harness) -> None:
    """Those who ask at once share what is there."""
    stream, ids = await parked_stream(harness, *[NOW] * 20)
    taken = await asyncio.gather(*(take(harness, stream, f"h{number}", count=6) for number in range(5)))
    assert sorted(entry.entry_id for part in taken for entry in part) == sorted(ids)


async def test_a_renewed_lease_hides_for_longer(harness: Harness) -> None:
    """For its holder only."""
    stream, ids = await parked_stream(harness, NOW)
    await take(harness, stream, "h1")
    renew = harness.streams.renew_parked
    assert await renew(stream, "g", "h1", [*ids, b"1-1"], now=NOW + 8, lease=10) == [True, False]
    assert await renew(stream, "g", "h2", ids, now=NOW, lease=0) == [False]
    assert await take(harness, stream, "h2", now=NOW + 17) == []
    assert len(await take(harness, stream, "h2", now=NOW + 18)) == 1
    assert await renew(stream, "g", "h1", ids, now=NOW, lease=10) == [False]


async def test_what_is_finished_is_gone(harness: Harness) -> None:
    """The holder removes it once; a late one who lost it does not."""
    stream, ids = await parked_stream(harness, NOW, NOW)
    await take(harness, stream, "h1")
    await harness.streams.renew_parked(stream, "g", "h1", ids[:1], now=NOW, lease=60)
    await take(harness, stream, "h2", now=NOW + 11)
    assert await harness.streams.finish_parked(stream, "g", "h1", ids) == [True, False]
    assert await harness.streams.finish_parked(stream, "g", "h1", ids) == [False, False]
    assert await harness.streams.finish_parked(stream, "g", "h2", ids) == [False, True]
    assert await harness.streams.parked_count([(stream, "g")]) == [0]
    assert not harness.place.has_key(parked_key(stream, "g"))


async def test_what_nobody_took_cannot_be_finished(harness: Harness) -> None:
    """It has no holder."""
    stream, ids = await parked_stream(harness, NOW)
    assert await harness.streams.finish_parked(stream, "g", "h1", ids) == [False]
    assert len(await take(harness, stream)) == 1


async def test_a_lease_that_is_over_still_counts_while_nobody_took_the_entry(harness: Harness) -> None:
    """A slow holder that nobody followed may finish."""
    stream, ids = await parked_stream(harness, NOW)
    await take(harness, stream, "h 1")
    assert await harness.streams.finish_parked(stream, "g", "h 1", ids) == [True]


async def test_what_failed_again_is_given_back_with_new_tries(harness: Harness) -> None:
    """It has no holder then, keeps its bytes and first time, and is due when told."""
    stream, ids = await parked_stream(harness, NOW, NOW)
    await take(harness, stream, "h1")
    changes = [(ids[0], 4, NOW + 100.25), (ids[1], 3, NOW), (b"1-1", 1, NOW)]
    assert await harness.streams.reschedule_parked(stream, "g", "h2", changes) == [False] * 3
    assert await harness.streams.reschedule_parked(stream, "g", "h1", changes) == [True, True, False]
    assert await harness.streams.finish_parked(stream, "g", "h1", ids) == [False, False]
    assert await take(harness, stream, "h2") == [parked(ids[1])]
    expected = parked(ids[0], NOW + 100.25)._replace(tries=4)
    assert await take(harness, stream, "h2", now=NOW + 100.25) == [parked(ids[1]), expected]


async def test_a_parked_entry_is_buried_in_one_step(harness: Harness) -> None:
    """By its holder, once."""
    stream, ids = await parked_stream(harness, NOW, NOW)
    await take(harness, stream, "h1", count=1)
    letters = [letter(entry_id) for entry_id in (*ids, ids[0])]
    assert await harness.streams.dead_letter_parked(stream, "g", "h2", letters) == [False] * 3
    assert await harness.streams.dead_letter_parked(stream, "g", "h1", letters) == [True, False, False]
    assert [read for _, read in await harness.streams.dead_letters(stream, "g")] == [letter(ids[0])]
    assert [entry.entry_id for entry in await take(harness, stream)] == [ids[1]]


async def test_what_cannot_be_buried_stays_parked(harness: Harness) -> None:
    """A key of another kind in the way of the dead letters loses nothing."""
    stream, ids = await parked_stream(harness, NOW)
    await take(harness, stream, "h1")
    harness.place.set_value(dead_letter_key(stream, "g"), b"text")
    with pytest.raises(WrongTypeError):
        await harness.streams.dead_letter_parked(stream, "g", "h1", [letter(ids[0])])
    assert await harness.streams.parked_count([(stream, "g")]) == [1]
    assert await harness.streams.finish_parked(stream, "g", "h1", ids) == [True]


async def test_what_cannot_be_parked_stays_pending(harness: Harness) -> None:
    """When the key holds something else, nothing is acked; a group that is gone is named."""
    stream, ids = await harness.delivered(1)
    harness.place.set_value(parked_key(stream, "g"), b"text")
    with pytest.raises(WrongTypeError):
        await harness.streams.park(stream, "g", "c1", [parked(ids[0])])
    assert [entry.id for entry in await harness.streams.pending(stream, "g")] == ids
    harness.place.delete_stream(parked_key(stream, "g"))
    harness.place.destroy_group(stream, "g")
    with pytest.raises(GroupNotFoundError):
        await harness.streams.park(stream, "g", "c1", [parked(ids[0])])


async def test_parked_entries_are_counted_and_the_next_one_is_known(harness: Harness) -> None:
    """Held ones count too, and come up when their lease ends; each group has its own."""
    stream, _ = await parked_stream(harness, NOW + 5, NOW - 5)
    groups = [(stream, "g"), (stream, "h"), (harness.stream("missing"), "g")]
    assert await harness.streams.parked_count(groups) == [2, 0, 0]
    assert await harness.streams.next_parked(groups) == [NOW - 5, None, None]
    await take(harness, stream)
    assert await harness.streams.next_parked(groups[:1]) == [NOW + 5]
    await take(harness, stream, now=NOW + 6)
    assert await harness.streams.next_parked(groups[:1]) == [NOW + 10]
    assert await harness.streams.parked_count(groups[:1]) == [2]


async def test_empty_calls_are_allowed(harness: Harness) -> None:
    """They return nothing and change nothing."""
    stream, streams = harness.stream(), harness.streams
    assert await streams.park(stream, "g", "c1", []) == []
    assert await take(harness, stream) == []
    assert await streams.renew_parked(stream, "g", "h1", [], now=NOW, lease=1) == []
    assert await streams.finish_parked(stream, "g", "h1", []) == []
    assert await streams.reschedule_parked(stream, "g", "h1", []) == []
    assert await streams.dead_letter_parked(stream, "g", "h1", []) == []
    assert await streams.parked_count([]) == []
    assert await streams.next_parked([]) == []
