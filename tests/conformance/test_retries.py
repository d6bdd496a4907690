"""Retries that are waiting, entries that change hands, and entries suspected of killing workers."""

from __future__ import annotations

import asyncio

import pytest

from hyperbus.errors import GroupNotFoundError, WrongTypeError
from hyperbus.transports.keys import retries_key, suspects_key
from tests.conformance.harness import DEADLINE, Harness

DUE = 1_800_000_000.125


async def test_a_retry_has_a_count_and_a_time(harness: Harness) -> None:
    """Both can be read back by whoever claims the entry."""
    stream, ids = await harness.delivered(3)
    retries = [(ids[0], 4, DUE), (ids[1], 2, DUE + 60)]
    assert await harness.streams.schedule_retries(stream, "g", "c1", retries) == [True, True]
    assert await harness.streams.retry_times(stream, "g", ids) == [DUE, DUE + 60, None]
    assert [entry.delivery_count for entry in await harness.streams.pending(stream, "g")] == [4, 2, 1]


async def test_a_retry_needs_the_owner(harness: Harness) -> None:
    """Who lost the entry changes neither its count nor its time."""
    stream, ids = await harness.delivered(2)
    await harness.streams.claim(stream, "g", "c2", [ids[0]], owner="c1")
    answers = await harness.streams.schedule_retries(stream, "g", "c1", [(i, 9, DUE) for i in (*ids, b"1-1")])
    assert answers == [False, True, False]
    assert await harness.streams.retry_times(stream, "g", [*ids, b"1-1"]) == [None, DUE, None]
    assert [entry.delivery_count for entry in await harness.streams.pending(stream, "g")] == [2, 9]


async def test_a_later_retry_replaces_the_earlier_one(harness: Harness) -> None:
    """An entry has one time."""
    stream, ids = await harness.delivered(1)
    for due in (DUE, DUE - 30):
        await harness.streams.schedule_retries(stream, "g", "c1", [(ids[0], 2, due)])
    assert await harness.streams.retry_times(stream, "g", ids) == [DUE - 30]


async def test_a_count_that_is_written_starts_the_idle_time_again(harness: Harness) -> None:
    """Keeping it would make newer servers walk through all that is pending."""
    stream, ids = await harness.delivered(1)
    for write in (
        lambda: harness.streams.schedule_retries(stream, "g", "c1", [(ids[0], 2, DUE)]),
        lambda: harness.streams.set_delivery_counts(stream, "g", "c1", [(ids[0], 3)]),
    ):
        before = 0.0
        async with asyncio.timeout(DEADLINE):
            while before < 0.2:
                await asyncio.sleep(0.01)
                before = (await harness.streams.pending(stream, "g"))[0].idle
        assert await write() == [True]
        assert (await harness.streams.pending(stream, "g"))[0].idle < before


async def test_a_schedule_goes_with_the_entry_to_its_next_owner(harness: Harness) -> None:
    """It is the entry's, not the consumer's."""
    stream, ids = await harness.delivered(1)
    await harness.streams.schedule_retries(stream, "g", "c1", [(ids[0], 3, DUE)])
    [(_, count)] = await harness.streams.claim(stream, "g", "c2", ids, owner="c1")
    assert count == 4
    assert await harness.streams.retry_times(stream, "g", ids) == [DUE]


async def test_retries_are_forgotten(harness: Harness) -> None:
    """Those that are named, and each once."""
    stream, ids = await harness.delivered(3)
    await harness.streams.schedule_retries(stream, "g", "c1", [(entry_id, 2, DUE) for entry_id in ids])
    assert await harness.streams.forget_retries(stream, "g", [*ids[:2], b"1-1"]) == 2
    assert await harness.streams.forget_retries(stream, "g", ids[:2]) == 0
    assert await harness.streams.retry_times(stream, "g", ids) == [None, None, DUE]


async def test_schedules_of_acked_entries_do_not_pile_up(harness: Harness) -> None:
    """A worker that died between its ack and forgetting leaves nothing for ever."""
    stream, ids = await harness.delivered(31)
    for entry_id in ids[:30]:
        await harness.streams.schedule_retries(stream, "g", "c1", [(entry_id, 2, DUE)])
    await harness.streams.ack([(stream, "g", ids[:30])])
    for _ in range(4):
        await harness.streams.schedule_retries(stream, "g", "c1", [(ids[30], 2, DUE)])
    assert await harness.streams.retry_times(stream, "g", ids) == [None] * 30 + [DUE]


async def test_a_retry_of_a_deleted_entry_is_none(harness: Harness) -> None:
    """It leaves the pending list."""
    stream, ids = await harness.delivered(1)
    harness.place.delete_entries(stream, ids)
    assert await harness.streams.schedule_retries(stream, "g", "c1", [(ids[0], 2, DUE)]) == [False]
    assert await harness.streams.pending(stream, "g") == []
    assert await harness.streams.retry_times(stream, "g", ids) == [None]


async def test_retries_need_their_group_and_their_key(harness: Harness) -> None:
    """A group that is gone, or a key of another kind, is named; nothing is changed."""
    stream, ids = await harness.delivered(1)
    harness.place.set_value(retries_key(stream, "g"), b"text")
    with pytest.raises(WrongTypeError):
        await harness.streams.schedule_retries(stream, "g", "c1", [(ids[0], 5, DUE)])
    assert [entry.delivery_count for entry in await harness.streams.pending(stream, "g")] == [1]
    harness.place.delete_stream(retries_key(stream, "g"))
    harness.place.destroy_group(stream, "g")
    with pytest.raises(GroupNotFoundError):
        await harness.streams.schedule_retries(stream, "g", "c1", [(ids[0], 5, DUE)])


async def test_empty_calls_are_allowed(harness: Harness) -> None:
    """They return nothing and change nothing."""
    stream, _ = await harness.delivered(1)
    assert await harness.streams.schedule_retries(stream, "g", "c1", []) == []
    assert await harness.streams.retry_times(stream, "g", []) == []
    assert await harness.streams.forget_retries(stream, "g", []) == 0
    assert await harness.streams.hand_over(stream, "g", "c1", "c2", []) == []
    assert await harness.streams.suspect(stream, "g", []) == []
    assert await harness.streams.suspicions(stream, "g", []) == []
    assert await harness.streams.clear_suspects(stream, "g", []) == 0
    assert await harness.streams.consumers([]) == []


async def test_handing_over_keeps_the_count_that_is_named(harness: Harness) -> None:
    """The new owner has the entries, with the tries they had."""
    stream, ids = await harness.delivered(3)
    counts = [(ids[0], 1), (ids[2], 0)]
    assert await harness.streams.hand_over(stream, "g", "c1", "c2", counts) == [True, True]
    assert [
        (entry.id, entry.consumer, entry.delivery_count) for entry in await harness.streams.pending(stream, "g")
    ] == [
        (ids[0], "c2", 1),
        (ids[1], "c1", 1),
        (ids[2], "c2", 0),
    ]
    got = await harness.reader.read_pending("g", "c2", stream, after=b"0-0", count=9)
    assert [entry.id for entry in got] == [ids[0], ids[2]]
    assert await harness.streams.consumers([(stream, "g")]) == [["c1", "c2"]]


async def test_handing_over_needs_the_owner(harness: Harness) -> None:
    """Nobody gives away what another one holds, or nobody, or what is gone."""
    stream, ids = await harness.delivered(3)
    await harness.streams.claim(stream, "g", "c3", [ids[0]], owner="c1")
    harness.place.delete_entries(stream, [ids[1]])
    counts = [(entry_id, 1) for entry_id in (*ids, b"1-1")]
    assert await harness.streams.hand_over(stream, "g", "c1", "c2", counts) == [False, False, True, False]
    assert [(entry.id, entry.consumer) for entry in await harness.streams.pending(stream, "g")] == [
        (ids[0], "c3"),
        (ids[2], "c2"),
    ]


async def test_handing_over_many_takes_several_pages(harness: Harness) -> None:
    """More than one script's worth is one answer."""
    stream, _ = await harness.delivered(0)
    ids = await harness.add(stream, *[b"x"] * 1_200)
    await harness.take(stream, count=2_000)
    assert await harness.streams.hand_over(stream, "g", "c1", "c2", [(i, 1) for i in ids]) == [True] * 1_200
    assert await harness.streams.pending_summaries([(stream, "g")]) == [(1_200, {"c2": 1_200})]


async def test_consumers_are_named_busy_or_not(harness: Harness) -> None:
    """Each (stream, group) has its own; what is missing has none."""
    stream, ids = await harness.delivered(1)
    await harness.add(stream, b"x")
    await harness.take(stream, consumer="c2")
    await harness.streams.ack([(stream, "g", ids)])
    asked = [(stream, "g"), (stream, "missing"), (harness.stream("missing"), "g")]
    assert await harness.streams.consumers(asked) == [["c1", "c2"], [], []]


async def test_suspicions_are_counted_and_cleared(harness: Harness) -> None:
    """Each entry has its own number, in each group."""
    stream, ids = await harness.delivered(3)
    assert await harness.streams.suspect(stream, "g", ids[:2]) == [1, 1]
    assert await harness.streams.suspect(stream, "g", [ids[1], ids[1]]) == [2, 3]
    assert await harness.streams.suspicions(stream, "g", ids) == [1, 3, 0]
    assert await harness.streams.suspicions(stream, "h", ids) == [0, 0, 0]
    assert await harness.streams.clear_suspects(stream, "g", ids[1:]) == 1
    assert await harness.streams.suspicions(stream, "g", ids) == [1, 0, 0]
    assert harness.place.has_key(suspects_key(stream, "g"))
