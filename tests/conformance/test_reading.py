"""Reads that wait and reads that do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hyperbus.errors import BusUnavailable, GroupNotFoundError, WrongTypeError
from hyperbus.transport import FIRST_ID, DeadLetter, Read
from hyperbus.transports.keys import dead_letter_key
from tests.conformance.harness import DEADLINE, Harness

#: Longer than any claim may take: a read that returns was woken.
LONG = 60.0


@pytest.fixture(autouse=True)
async def deadline() -> AsyncIterator[None]:
    """Nothing here depends on a block running out, so nothing may take long."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    yield
    assert loop.time() - start < 2 * DEADLINE


def reading(harness: Harness, *streams: str, consumer: str = "c1", block: float = LONG) -> asyncio.Task[Read]:
    return asyncio.create_task(harness.reader.read_group("g", consumer, streams, count=10, block=block))


async def test_read_group_delivers_in_order_up_to_count_a_stream(harness: Harness) -> None:
    """Count limits each stream, not the call."""
    first, second = harness.stream("a"), harness.stream("b")
    await harness.group(first, second)
    in_first = await harness.add(first, b"1", b"2", b"3")
    in_second = await harness.add(second, b"4")
    read = dict(await harness.reader.read_group("g", "c1", [first, second], count=2, block=0))
    assert [entry.id for entry in read[first]] == in_first[:2]
    assert [entry.id for entry in read[second]] == in_second
    assert read[second][0].fields == [b"data", b"4"]


async def test_read_group_leaves_out_streams_without_news(harness: Harness) -> None:
    """Only streams that had something are in the answer."""
    first, second = harness.stream("a"), harness.stream("b")
    await harness.group(first, second)
    await harness.add(second, b"1")
    read = await harness.reader.read_group("g", "c1", [first, second], count=10, block=0)
    assert [stream for stream, _ in read] == [second]


async def test_two_consumers_never_get_the_same_new_entry(harness: Harness) -> None:
    """Every entry goes to one consumer of the group, whoever asks first."""
    stream = harness.stream()
    await harness.group(stream)
    ids = await harness.add(stream, *[b"x"] * 60)
    readers = [harness.transport.open_reader() for _ in range(3)]

    async def drain(number: int) -> list[bytes]:
        taken: list[bytes] = []
        while read := await readers[number].read_group("g", f"c{number}", [stream], count=7, block=0):
            taken += [entry.id for _, entries in read for entry in entries]
        return taken

    taken = await asyncio.gather(*map(drain, range(3)))
    assert sorted(entry_id for part in taken for entry_id in part) == sorted(ids)


async def test_two_groups_both_get_every_entry(harness: Harness) -> None:
    """Groups do not see one another."""
    stream = harness.stream()
    await harness.streams.create_groups([(stream, "g", FIRST_ID), (stream, "h", FIRST_ID)])
    ids = await harness.add(stream, b"1", b"2")
    assert await harness.take(stream) == ids
    [(_, entries)] = await harness.reader.read_group("h", "c1", [stream], count=10, block=0)
    assert [entry.id for entry in entries] == ids


async def test_a_missing_group_delivers_nothing_from_any_stream(harness: Harness) -> None:
    """One stream without the group fails the call, and the others keep what they have."""
    there, without_group = harness.stream("there"), harness.stream("without")
    await harness.group(there)
    ids = await harness.add(there, b"1")
    await harness.add(without_group, b"1")
    for missing in (without_group, harness.stream("missing")):
        with pytest.raises(GroupNotFoundError):
            await harness.take(there, missing)
    assert await harness.streams.pending(there, "g") == []
    assert await harness.take(there) == ids


async def test_another_type_delivers_nothing_from_any_stream(harness: Harness) -> None:
    """One key that is no stream fails the call, and the others keep what they have."""
    there, text = harness.stream("there"), harness.stream("text")
    await harness.group(there)
    ids = await harness.add(there, b"1")
    harness.place.set_value(text, b"text")
    with pytest.raises(WrongTypeError):
        await harness.take(there, text)
    assert await harness.take(there) == ids


async def test_block_zero_does_not_wait(harness: Harness) -> None:
    """Without block a read returns at once."""
    stream = harness.stream()
    await harness.group(stream)
    assert await harness.reader.read_group("g", "c1", [stream], count=1, block=0) == []
    assert await harness.reader.read({stream: FIRST_ID}, count=1, block=0) == []


async def test_a_block_that_runs_out_returns_nothing(harness: Harness) -> None:
    """A read waits for its block, and then returns an empty list."""
    stream = harness.stream()
    await harness.group(stream)
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert await harness.reader.read_group("g", "c1", [stream], count=1, block=0.05) == []
    assert await harness.reader.read({stream: FIRST_ID}, count=1, block=0.05) == []
    assert loop.time() - start >= 0.09


async def test_a_blocked_read_returns_what_is_appended(harness: Harness) -> None:
    """An append to any of the streams wakes the read."""
    first, second = harness.stream("a"), harness.stream("b")
    await harness.group(first, second)
    task = reading(harness, first, second)
    await harness.blocked()
    ids = await harness.add(second, b"1")
    assert [(stream, [entry.id for entry in entries]) for stream, entries in await task] == [(second, ids)]


async def test_one_append_goes_to_one_of_two_blocked_consumers(harness: Harness) -> None:
    """The other consumer goes on waiting, and gets the next."""
    stream = harness.stream()
    await harness.group(stream)
    readers = [harness.transport.open_reader() for _ in range(2)]
    tasks = []
    for number, reader in enumerate(readers):
        call = reader.read_group("g", f"c{number}", [stream], count=10, block=LONG)
        tasks.append(asyncio.create_task(call))
        await harness.blocked(reader)
    first = await harness.add(stream, b"1")
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE)
    second = await harness.add(stream, b"2")
    reads = await asyncio.gather(*tasks)
    assert sorted(entry.id for [(_, entries)] in reads for entry in entries) == [*first, *second]


async def test_wake_ends_a_blocked_read(harness: Harness) -> None:
    """Wake makes the read return with nothing, and the next one works."""
    stream = harness.stream()
    await harness.group(stream)
    task = reading(harness, stream)
    await harness.blocked()
    await harness.reader.wake()
    assert await task == []
    ids = await harness.add(stream, b"1")
    assert await harness.take(stream) == ids


async def test_wake_ends_a_blocked_read_without_group(harness: Harness) -> None:
    """Wake works for `read` too."""
    task = asyncio.create_task(harness.reader.read({harness.stream(): FIRST_ID}, count=1, block=LONG))
    await harness.blocked()
    await harness.reader.wake()
    assert await task == []


async def test_wake_before_a_read_ends_that_read(harness: Harness) -> None:
    """A wake that comes a moment too early is not lost, and is used up by one read."""
    stream = harness.stream()
    await harness.group(stream)
    await harness.reader.wake()
    assert await harness.reader.read_group("g", "c1", [stream], count=1, block=LONG) == []
    task = reading(harness, stream)
    await harness.blocked()
    ids = await harness.add(stream, b"1")
    assert [entry.id for _, entries in await task for entry in entries] == ids


async def test_a_blocked_read_learns_that_its_stream_is_gone(harness: Harness) -> None:
    """Deleting one of the streams ends the wait at once."""
    first, second = harness.stream("a"), harness.stream("b")
    await harness.group(first, second)
    task = reading(harness, first, second)
    await harness.blocked()
    harness.place.delete_stream(second)
    with pytest.raises(GroupNotFoundError):
        await task


async def test_a_blocked_read_learns_that_its_group_is_gone(harness: Harness) -> None:
    """Destroying the group ends the wait at once."""
    stream = harness.stream()
    await harness.group(stream)
    task = reading(harness, stream)
    await harness.blocked()
    harness.place.destroy_group(stream, "g")
    with pytest.raises(GroupNotFoundError):
        await task


async def test_a_group_made_again_delivers_again(harness: Harness) -> None:
    """A group that was lost has forgotten what it delivered."""
    stream = harness.stream()
    await harness.group(stream)
    ids = await harness.add(stream, b"1", b"2")
    await harness.take(stream)
    harness.place.destroy_group(stream, "g")
    with pytest.raises(GroupNotFoundError):
        await harness.take(stream)
    await harness.group(stream)
    assert await harness.take(stream) == ids


async def test_a_cancelled_read_takes_nothing_with_it(harness: Harness) -> None:
    """What is appended after the cancel goes to the next read."""
    stream = harness.stream()
    await harness.group(stream)
    task = reading(harness, stream)
    await harness.blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await harness.reader.read_group("g", "c1", [stream], count=1, block=0)
    ids = await harness.add(stream, b"1")
    assert await harness.take(stream) == ids


async def test_closing_a_reader_ends_its_read(harness: Harness) -> None:
    """A blocked read raises, and so does every later one; other readers go on."""
    stream = harness.stream()
    await harness.group(stream)
    task = reading(harness, stream)
    await harness.blocked()
    await harness.reader.close()
    await harness.reader.close()
    with pytest.raises(BusUnavailable):
        await task
    with pytest.raises(BusUnavailable):
        await harness.take(stream)
    harness.reader = harness.transport.open_reader()
    assert await harness.take(stream) == []


async def test_closing_the_transport_ends_blocked_reads(harness: Harness) -> None:
    """Readers are closed with their transport."""
    task = asyncio.create_task(harness.reader.read({harness.stream(): FIRST_ID}, count=1, block=LONG))
    await harness.blocked()
    await harness.transport.close()
    with pytest.raises(BusUnavailable):
        await task


async def test_read_returns_history_from_a_position(harness: Harness) -> None:
    """Read needs no group, takes a position a stream, and leaves nothing pending."""
    first, second = harness.stream("a"), harness.stream("b")
    await harness.group(first)
    in_first = await harness.add(first, b"1", b"2", b"3", b"4")
    in_second = await harness.add(second, b"5")
    positions = {first: in_first[0], second: FIRST_ID, harness.stream("missing"): FIRST_ID}
    read = dict(await harness.reader.read(positions, count=2, block=0))
    assert {name: [entry.id for entry in entries] for name, entries in read.items()} == {
        first: in_first[1:3],
        second: in_second,
    }
    assert await harness.streams.pending(first, "g") == []


async def test_read_waits_for_a_stream_that_does_not_exist(harness: Harness) -> None:
    """The first entry of a new stream wakes the read."""
    stream = harness.stream()
    task = asyncio.create_task(harness.reader.read({stream: FIRST_ID}, count=1, block=LONG))
    await harness.blocked()
    ids = await harness.add(stream, b"1")
    [(name, entries)] = await task
    assert (name, [entry.id for entry in entries]) == (stream, ids)


async def test_a_blocked_read_returns_dead_letters(harness: Harness) -> None:
    """Dead letters are a stream that can be followed like any other."""
    stream, [entry_id] = await harness.delivered(1)
    dead = dead_letter_key(stream, "g")
    task = asyncio.create_task(harness.reader.read({dead: FIRST_ID}, count=1, block=LONG))
    await harness.blocked()
    letter = DeadLetter(entry_id, [b"data", b"{}"], "rejected", "", "", "", 1, 1.0, 2.0)
    assert await harness.streams.dead_letter(stream, "g", "c1", [letter]) == [True]
    assert [(name, len(entries)) for name, entries in await task] == [(dead, 1)]


async def test_read_of_another_type_fails(harness: Harness) -> None:
    """A key that is no stream cannot be read as one."""
    harness.place.set_value(harness.stream(), b"text")
    with pytest.raises(WrongTypeError):
        await harness.reader.read({harness.stream(): FIRST_ID}, count=1, block=0)


async def test_a_read_of_no_streams_waits_until_it_is_woken(harness: Harness) -> None:
    """A worker whose streams do not exist yet can wait like any other."""
    assert await harness.reader.read_group("g", "c1", [], count=1, block=0.01) == []
    await harness.reader.wake()
    assert await harness.reader.read({}, count=1, block=LONG) == []


async def test_read_pending_pages_through_what_a_consumer_holds(harness: Harness) -> None:
    """Only the consumer's own entries, above `after`, at most `count`."""
    stream, ids = await harness.delivered(4)
    [other] = await harness.add(stream, b"other")
    await harness.take(stream, consumer="c2")
    read_pending = harness.reader.read_pending
    page = await read_pending("g", "c1", stream, after=FIRST_ID, count=3)
    rest = await read_pending("g", "c1", stream, after=page[-1].id, count=3)
    assert [len(page), len(rest)] == [3, 1]
    assert [entry.id for entry in page + rest] == ids
    assert page[2].fields == [b"data", b"2"]
    assert [entry.id for entry in await read_pending("g", "c2", stream, after=FIRST_ID, count=9)] == [other]
    assert await read_pending("g", "nobody", stream, after=FIRST_ID, count=9) == []


async def test_read_pending_counts_as_a_delivery(harness: Harness) -> None:
    """The delivery count rises by one, for what is returned."""
    stream, ids = await harness.delivered(2)
    await harness.reader.read_pending("g", "c1", stream, after=FIRST_ID, count=1)
    assert [(entry.id, entry.delivery_count) for entry in await harness.streams.pending(stream, "g")] == [
        (ids[0], 2),
        (ids[1], 1),
    ]


async def test_read_pending_returns_deleted_entries_without_fields(harness: Harness) -> None:
    """An entry that is gone is still pending, says so by having nothing, and counts as no delivery."""
    stream, ids = await harness.delivered(2)
    harness.place.delete_entries(stream, [ids[0]])
    entries = await harness.reader.read_pending("g", "c1", stream, after=FIRST_ID, count=9)
    assert entries == [(ids[0], []), (ids[1], [b"data", b"1"])]
    assert [entry.delivery_count for entry in await harness.streams.pending(stream, "g")] == [1, 2]


async def test_read_pending_needs_the_group(harness: Harness) -> None:
    """A group that is gone has no history."""
    with pytest.raises(GroupNotFoundError):
        await harness.reader.read_pending("g", "c1", harness.stream(), after=FIRST_ID, count=1)
