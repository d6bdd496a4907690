"""Appending what may be a repeat, appending notices, and what memory says to durability."""

from __future__ import annotations

import asyncio

import pytest

from hyperbus.errors import BusUnavailable, DurabilityUnsupported, PublishRefusedError
from hyperbus.transport import Durability, NewEntry
from hyperbus.transports.keys import once_key
from tests.conformance.harness import Harness, MemoryPlace, until

WINDOW = 600.0


def entry(stream: str, body: bytes) -> NewEntry:
    return NewEntry(stream, b"data", body)


async def bodies(harness: Harness, stream: str) -> list[bytes]:
    return [found.fields[1] for found in await harness.streams.range(stream, count=5_000)]


async def test_a_repeat_adds_nothing_and_names_the_first_entry(harness: Harness) -> None:
    """The second answer is the first one, whatever the body."""
    stream = harness.stream()
    [first] = await harness.streams.append_once([(entry(stream, b"1"), "e1")], window=WINDOW)
    again = await harness.streams.append_once([(entry(stream, b"2"), "e1"), (entry(stream, b"3"), "e2")], window=WINDOW)
    assert again[0] == first
    assert [found.id.decode() for found in await harness.streams.range(stream)] == [first, again[1]]
    assert await bodies(harness, stream) == [b"1", b"3"]


async def test_a_repeat_in_one_call_adds_nothing(harness: Harness) -> None:
    """Entries of a batch are taken one after the other."""
    stream = harness.stream()
    first, second = await harness.streams.append_once(
        [(entry(stream, b"1"), "e"), (entry(stream, b"2"), "e")], window=9
    )
    assert first == second
    assert await bodies(harness, stream) == [b"1"]


async def test_each_stream_remembers_its_own_events(harness: Harness) -> None:
    """The same event id on another stream is another event."""
    first, second = harness.stream("a"), harness.stream("b")
    await harness.streams.append_once([(entry(first, b"1"), "e"), (entry(second, b"2"), "e")], window=WINDOW)
    assert [await bodies(harness, stream) for stream in (first, second)] == [[b"1"], [b"2"]]


async def test_large_batches_keep_their_order(harness: Harness) -> None:
    """A batch of several pieces is stored as it was given, and its repeat adds nothing."""
    stream = harness.stream()
    batch = [(entry(stream, b"%d" % number), f"e{number}") for number in range(2_100)]
    first = await harness.streams.append_once(batch, window=WINDOW)
    assert await harness.streams.append_once(batch, window=WINDOW) == first
    assert await bodies(harness, stream) == [b"%d" % number for number in range(2_100)]
    assert await harness.streams.append_once([], window=WINDOW) == []


async def test_after_its_window_an_event_is_new(harness: Harness) -> None:
    """What is remembered is forgotten in time."""
    stream = harness.stream()
    await harness.streams.append_once([(entry(stream, b"1"), "e")], window=0.05)
    await until(lambda: not harness.place.has_key(once_key(stream, "e")))
    await harness.streams.append_once([(entry(stream, b"2"), "e")], window=0.05)
    assert await bodies(harness, stream) == [b"1", b"2"]


async def test_a_repeat_starts_the_window_again(harness: Harness) -> None:
    """The window counts from the last time that the event came."""
    stream = harness.stream()
    await harness.streams.append_once([(entry(stream, b"1"), "kept"), (entry(stream, b"1"), "gone")], window=0.2)
    await harness.streams.append_once([(entry(stream, b"2"), "kept")], window=WINDOW)
    await until(lambda: not harness.place.has_key(once_key(stream, "gone")))
    await harness.streams.append_once([(entry(stream, b"3"), "kept")], window=WINDOW)
    assert await bodies(harness, stream) == [b"1", b"1"]


async def test_a_refused_event_is_not_remembered(harness: Harness) -> None:
    """Once the stream takes entries, the same event is stored; its neighbours were all along."""
    bad, good = harness.stream("bad"), harness.stream("good")
    harness.place.set_value(bad, b"text")
    refused, stored = await harness.streams.append_once([(entry(bad, b"1"), "e"), (entry(good, b"2"), "e")], window=9)
    assert isinstance(refused, PublishRefusedError)
    assert isinstance(stored, str)
    harness.place.delete_stream(bad)
    await harness.streams.append_once([(entry(bad, b"1"), "e")], window=WINDOW)
    assert await bodies(harness, bad) == [b"1"]


async def test_of_many_that_publish_the_same_event_one_adds_it(harness: Harness) -> None:
    """Looking and adding is one step."""
    stream = harness.stream()
    other = harness.place.transport(harness.prefix)
    await other.open()
    calls = [
        side.streams.append_once([(entry(stream, b"1"), "e")], window=WINDOW)
        for side in (harness.transport, other) * 10
    ]
    answers = [answer for [answer] in await asyncio.gather(*calls)]
    await other.close()
    assert len(set(answers)) == 1
    assert await bodies(harness, stream) == [b"1"]


async def test_a_closed_transport_sends_nothing(harness: Harness) -> None:
    """Each entry is told so."""
    await harness.transport.close()
    [answer] = await harness.streams.append_once([(entry(harness.stream(), b"1"), "e")], window=WINDOW)
    assert isinstance(answer, BusUnavailable)


async def test_notices_are_kept_up_to_a_number(harness: Harness) -> None:
    """The last ones stay, and only a block more of them."""
    stream = harness.stream()
    ids = [await harness.streams.append_notice(stream, b"n", b"%d" % number, keep=150) for number in range(700)]
    kept = [found.id.decode() for found in await harness.streams.range(stream, count=1_000)]
    assert 150 <= len(kept) <= 250
    assert kept == ids[-len(kept) :]


async def test_a_notice_wakes_a_reader(harness: Harness) -> None:
    """Notices are read like any entry."""
    stream = harness.stream()
    task = asyncio.create_task(harness.reader.read({stream: b"0-0"}, count=9, block=30))
    await harness.blocked()
    entry_id = await harness.streams.append_notice(stream, b"n", b"hello", keep=10)
    [(name, page)] = await task
    assert (name, list(page)) == (stream, [(entry_id.encode(), [b"n", b"hello"])])


async def test_memory_is_neither_a_replica_nor_a_disk(harness: Harness) -> None:
    """It refuses at once, and stores nothing."""
    if not isinstance(harness.place, MemoryPlace):
        pytest.skip("servers have tests of their own")
    stream = harness.stream()
    for durability in (Durability(replicas=1), Durability(disk=True)):
        with pytest.raises(DurabilityUnsupported):
            await harness.streams.check_durability(durability)
        answers = await harness.streams.append([entry(stream, b"1")], durability=durability)
        answers += await harness.streams.append_once([(entry(stream, b"1"), "e")], window=9, durability=durability)
        assert [type(answer) for answer in answers] == [DurabilityUnsupported] * 2
    assert await harness.streams.range(stream) == []
