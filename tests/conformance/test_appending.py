"""Appending, groups, and what can be seen of a stream."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest

from hyperbus.errors import BusUnavailable, GroupNotFoundError, PublishRefusedError, WrongTypeError
from hyperbus.transport import FIRST_ID, NewEntry
from tests.conformance.harness import Harness


def parts(entry_id: bytes) -> tuple[int, int]:
    milliseconds, sequence = entry_id.split(b"-")
    return int(milliseconds), int(sequence)


async def test_append_returns_ids_in_the_order_of_the_entries(harness: Harness) -> None:
    """The ids that append returns name the entries it was given, in order."""
    stream = harness.stream()
    ids = await harness.add(stream, b"one", b"two", b"three")
    entries = await harness.streams.range(stream)
    assert [(entry.id, entry.fields) for entry in entries] == [
        (ids[0], [b"data", b"one"]),
        (ids[1], [b"data", b"two"]),
        (ids[2], [b"data", b"three"]),
    ]


async def test_ids_strictly_increase(harness: Harness) -> None:
    """No id repeats or goes back, however fast entries come."""
    ids = await harness.add(harness.stream(), *[b"x"] * 500)
    numbers = [parts(entry_id) for entry_id in ids]
    assert all(before < after for before, after in pairwise(numbers))


async def test_ids_follow_the_clock(harness: Harness) -> None:
    """The first half of an id is the time in milliseconds."""
    [entry_id] = await harness.add(harness.stream(), b"x")
    assert abs(parts(entry_id)[0] / 1000 - time.time()) < 5


async def test_append_takes_several_streams_at_once(harness: Harness) -> None:
    """One call appends to many streams, and answers in the order of the call."""
    first, second = harness.stream("a"), harness.stream("b")
    results = await harness.streams.append(
        [NewEntry(first, b"f", b"1"), NewEntry(second, b"f", b"2"), NewEntry(first, b"f", b"3")]
    )
    in_first, in_second = await harness.streams.range(first), await harness.streams.range(second)
    assert [entry.id.decode() for entry in (in_first[0], in_second[0], in_first[1])] == results


@pytest.mark.parametrize("bodies", [list, iter], ids=["made", "made while asked for"])
async def test_what_append_tells_early_is_what_it_returns(harness: Harness, bodies: Any) -> None:
    """It tells the first items, then the next ones, of entries that are stored; or nothing."""
    stream, told = harness.stream(), list[Any]()
    entries = bodies([NewEntry(stream, b"data", b"%d" % n) for n in range(700)])
    results = await harness.streams.append(entries, tell=told.extend)
    assert told in ([], results)
    read = await harness.streams.range(stream, count=1_000)
    assert [entry.id.decode() for entry in read] == results
    assert [entry.fields[1] for entry in read] == [b"%d" % n for n in range(700)]


async def test_append_of_nothing_returns_nothing(harness: Harness) -> None:
    """An empty call is allowed."""
    assert await harness.streams.append([]) == []


@pytest.mark.parametrize(
    "body", [b"", bytes(range(256)), b"\r\n$5\r\n", b"x" * 300_000], ids=["empty", "all", "crlf", "big"]
)
async def test_bodies_are_stored_byte_for_byte(harness: Harness, body: bytes) -> None:
    """Field and body come back as they were given."""
    stream = harness.stream()
    await harness.streams.append([NewEntry(stream, b"\xff\x00", body)])
    [entry] = await harness.streams.range(stream)
    assert entry.fields == [b"\xff\x00", body]


async def test_append_reports_a_refusal_in_its_place(harness: Harness) -> None:
    """An entry that is refused does not keep its neighbours out."""
    good, bad = harness.stream("good"), harness.stream("bad")
    harness.place.set_value(bad, b"text")
    first, refused, last = await harness.streams.append(
        [NewEntry(good, b"f", b"1"), NewEntry(bad, b"f", b"2"), NewEntry(good, b"f", b"3")]
    )
    assert isinstance(first, str)
    assert isinstance(refused, PublishRefusedError)
    assert isinstance(last, str)


async def test_creating_a_group_twice_tells_so(harness: Harness) -> None:
    """create_groups says which groups are new, and makes the stream."""
    stream = harness.stream()
    assert await harness.streams.create_groups([(stream, "g", FIRST_ID), (stream, "h", FIRST_ID)]) == [True, True]
    assert await harness.streams.create_groups([(stream, "g", b"5-5"), (stream, "i", FIRST_ID)]) == [False, True]
    [info] = await harness.streams.info([stream])
    assert info is not None
    assert (info.length, [group.group for group in info.groups]) == (0, ["g", "h", "i"])
    assert info.groups[0].last_delivered_id == FIRST_ID


async def test_creating_groups_is_not_possible_on_another_type(harness: Harness) -> None:
    """A key that is no stream is named as such."""
    harness.place.set_value(harness.stream(), b"text")
    with pytest.raises(WrongTypeError):
        await harness.group(harness.stream())


async def test_a_group_gets_only_what_follows_its_start(harness: Harness) -> None:
    """A group created after an id is not given that entry or earlier ones."""
    stream = harness.stream()
    ids = await harness.add(stream, b"1", b"2", b"3")
    await harness.group(stream, after=ids[1])
    assert await harness.take(stream) == [ids[2]]


async def test_a_group_created_at_the_end_gets_what_comes(harness: Harness) -> None:
    """`$` stands for the end of the stream."""
    stream = harness.stream()
    await harness.add(stream, b"1", b"2")
    await harness.group(stream, after=b"$")
    [later] = await harness.add(stream, b"3")
    assert await harness.take(stream) == [later]


async def test_range_is_exclusive_and_limited(harness: Harness) -> None:
    """Range starts above `after` and stops at `count`."""
    stream = harness.stream()
    ids = await harness.add(stream, b"1", b"2", b"3", b"4")
    assert [entry.id for entry in await harness.streams.range(stream, after=ids[0], count=2)] == ids[1:3]
    assert await harness.streams.range(stream, after=ids[3]) == []


async def test_range_of_a_missing_stream_is_empty(harness: Harness) -> None:
    """A stream that does not exist has no entries."""
    assert await harness.streams.range(harness.stream()) == []


async def test_range_of_another_type_fails(harness: Harness) -> None:
    """A key that is no stream cannot be read as one."""
    harness.place.set_value(harness.stream(), b"text")
    with pytest.raises(WrongTypeError):
        await harness.streams.range(harness.stream())


async def test_last_ids_outlive_the_entries(harness: Harness) -> None:
    """The highest id is known even when its entry is deleted; missing and new streams say 0-0."""
    stream, empty = harness.stream("full"), harness.stream("empty")
    ids = await harness.add(stream, b"1", b"2")
    harness.place.delete_entries(stream, ids)
    await harness.group(empty)
    assert await harness.streams.last_ids([stream, empty, harness.stream("missing")]) == [ids[1], FIRST_ID, FIRST_ID]


async def test_last_ids_of_nothing_are_none(harness: Harness) -> None:
    """Empty calls are allowed."""
    assert await harness.streams.last_ids([]) == []
    assert await harness.streams.info([]) == []
    assert await harness.streams.create_groups([]) == []


async def test_info_counts_what_a_group_has(harness: Harness) -> None:
    """Length, consumers, pending, lag and position are exact."""
    stream = harness.stream()
    await harness.group(stream)
    ids = await harness.add(stream, b"1", b"2", b"3", b"4", b"5")
    await harness.take(stream, consumer="c1", count=2)
    await harness.take(stream, consumer="c2", count=1)
    await harness.streams.ack([(stream, "g", ids[:1])])
    [info] = await harness.streams.info([stream])
    assert info is not None
    assert (info.stream, info.length) == (stream, 5)
    assert info.groups == [("g", 2, 2, 2, ids[2])]


async def test_info_of_a_missing_stream_is_none(harness: Harness) -> None:
    """Missing streams keep their place in the answer."""
    there = harness.stream("there")
    await harness.add(there, b"1")
    missing, found = await harness.streams.info([harness.stream("missing"), there])
    assert missing is None
    assert found == (there, 1, [])


async def test_lag_is_not_guessed(harness: Harness) -> None:
    """A group that starts in the middle has no lag until it reaches the end."""
    stream = harness.stream()
    ids = await harness.add(stream, b"1", b"2", b"3", b"4")
    await harness.group(stream, after=ids[1])
    [before] = await harness.streams.info([stream])
    await harness.take(stream)
    [after] = await harness.streams.info([stream])
    assert before is not None
    assert after is not None
    assert (before.groups[0].lag, after.groups[0].lag) == (None, 0)


async def test_lag_is_unknown_ahead_of_a_hole(harness: Harness) -> None:
    """An entry deleted ahead of the group makes its lag unknown."""
    stream = harness.stream()
    await harness.group(stream)
    ids = await harness.add(stream, b"1", b"2", b"3", b"4")
    await harness.take(stream, count=1)
    harness.place.delete_entries(stream, [ids[2]])
    [info] = await harness.streams.info([stream])
    assert info is not None
    assert info.groups[0].lag is None


async def test_lag_counts_from_the_first_entry(harness: Harness) -> None:
    """A group at the beginning lags by the whole stream."""
    stream = harness.stream()
    await harness.add(stream, b"1", b"2", b"3")
    await harness.group(stream)
    [info] = await harness.streams.info([stream])
    assert info is not None
    assert info.groups[0].lag == 3


async def test_scan_finds_streams_by_glob(harness: Harness) -> None:
    """Scan returns streams only, each once, as the glob says."""
    await harness.add(harness.stream("a.one"), b"1")
    await harness.add(harness.stream("a.two"), b"1")
    await harness.add(harness.stream("b.one"), b"1")
    harness.place.set_value(harness.stream("a.text"), b"text")
    scan = harness.streams.scan
    everything = [harness.stream(name) for name in ("a.one", "a.two", "b.one")]
    assert sorted(await scan(f"{harness.prefix}:*")) == everything
    assert sorted(await scan(f"{harness.prefix}:a.*")) == everything[:2]
    assert sorted(await scan(f"{harness.prefix}:?.one")) == [everything[0], everything[2]]
    assert sorted(await scan(f"{harness.prefix}:[^b].*")) == everything[:2]
    assert await scan(harness.stream("a.on")) == []
    assert await scan(harness.stream("a\\.one")) == [everything[0]]


async def test_a_closed_transport_refuses_and_can_be_opened_again(harness: Harness) -> None:
    """After close nothing is sent; after open it works as before."""
    stream = harness.stream()
    await harness.add(stream, b"1")
    await harness.transport.close()
    await harness.transport.close()
    [refused] = await harness.streams.append([NewEntry(stream, b"f", b"2")])
    assert isinstance(refused, BusUnavailable)
    with pytest.raises(BusUnavailable):
        await harness.streams.range(stream)
    with pytest.raises(BusUnavailable):
        await harness.records.get(["x"])
    await harness.transport.open()
    assert len(await harness.streams.range(stream)) == 1


async def test_a_separate_transport_sees_the_same_place(harness: Harness) -> None:
    """What one writes, the other reads; closing one leaves the other open."""
    other = harness.transport.separate()
    await other.open()
    await other.records.put("seen", b"yes")
    ids = await harness.add(harness.stream(), b"1")
    assert [entry.id for entry in await other.streams.range(harness.stream())] == ids
    await other.close()
    assert await harness.records.get(["seen"]) == [b"yes"]


async def test_a_separate_transport_works_on_another_loop(harness: Harness) -> None:
    """A thread with a loop of its own appends, and the read that is blocked here returns."""
    stream = harness.stream()
    other = harness.transport.separate()

    async def append() -> None:
        await other.open()
        await other.streams.append([NewEntry(stream, b"f", b"from a thread")])
        await other.close()

    async with asyncio.timeout(10):
        reading = asyncio.create_task(harness.reader.read({stream: FIRST_ID}, count=1, block=9))
        await harness.blocked()
        await asyncio.to_thread(asyncio.run, append())
        [(_, [entry])] = await reading
    assert entry.fields == [b"f", b"from a thread"]


async def test_the_description_says_where_it_is(harness: Harness) -> None:
    """The description is a URL."""
    assert "://" in harness.transport.description


async def test_a_missing_group_is_an_error_where_entries_are_changed(harness: Harness) -> None:
    """Claiming from a group that is gone says so."""
    with pytest.raises(GroupNotFoundError):
        await harness.streams.claim(harness.stream(), "g", "c2", [b"1-1"], owner="c1")
    with pytest.raises(GroupNotFoundError):
        await harness.streams.set_delivery_counts(harness.stream(), "g", "c1", [(b"1-1", 2)])
