"""What a server that is out of memory still takes, and what it refuses without losing anything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hyperbus.errors import BusUnavailable, OutOfMemoryError, PublishRefusedError
from hyperbus.transport import DeadLetter, NewEntry, Parked, id_before
from hyperbus.transports.keys import once_key, parked_key
from tests.conformance.harness import Harness, ServerPlace
from tests.servers import Server


class Memory:
    """The memory limit of a shared server; it is lifted after the test."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def exhaust(self) -> None:
        self._server.command("CONFIG", "SET", "maxmemory", 1)

    def free(self) -> None:
        self._server.command("CONFIG", "SET", "maxmemory", 0)


@pytest.fixture
def place(server: Server) -> ServerPlace:
    return ServerPlace(server)


@pytest.fixture
def memory(server: Server) -> Iterator[Memory]:
    memory = Memory(server)
    yield memory
    memory.free()


def parked(entry_id: bytes) -> Parked:
    return Parked(entry_id, [b"data", b"x"], 3, 1.5, 2.5)


def letter(entry_id: bytes) -> DeadLetter:
    return DeadLetter(entry_id, [b"data", b"x"], "exhausted", "E", "m", "t", 8, 1.5, 2.5)


async def test_appends_are_refused_and_not_remembered(harness: Harness, memory: Memory) -> None:
    """An event that was refused is stored when it comes again."""
    stream = harness.stream()
    entry = NewEntry(stream, b"data", b"1")
    memory.exhaust()
    answers = await harness.streams.append([entry])
    answers += await harness.streams.append_once([(entry, "e"), (entry, "f")], window=60)
    assert [type(answer) for answer in answers] == [PublishRefusedError] * 3
    assert not harness.place.has_key(once_key(stream, "e"))
    memory.free()
    assert all(isinstance(a, str) for a in await harness.streams.append_once([(entry, "e"), (entry, "f")], window=60))


async def test_a_repeat_is_known_even_then(harness: Harness, memory: Memory) -> None:
    """It adds nothing, so there is nothing to refuse."""
    entry = NewEntry(harness.stream(), b"data", b"1")
    first = await harness.streams.append_once([(entry, "e")], window=60)
    memory.exhaust()
    assert await harness.streams.append_once([(entry, "e")], window=60) == first


async def test_retries_are_scheduled(harness: Harness, memory: Memory) -> None:
    """Count and time are written."""
    stream, ids = await harness.delivered(2)
    memory.exhaust()
    assert await harness.streams.schedule_retries(stream, "g", "c1", [(i, 5, 7.5) for i in ids]) == [True, True]
    assert [entry.delivery_count for entry in await harness.streams.pending(stream, "g")] == [5, 5]
    assert await harness.streams.retry_times(stream, "g", ids) == [7.5, 7.5]
    assert await harness.streams.forget_retries(stream, "g", ids) == 2


async def test_parking_is_refused_and_the_entry_stays_pending(harness: Harness, memory: Memory) -> None:
    """Nothing is acked, nothing is stored; scheduling tells that the entry is still ours."""
    stream, ids = await harness.delivered(2)
    memory.exhaust()
    assert await harness.streams.park(stream, "g", "c1", [parked(entry_id) for entry_id in ids]) == [False, False]
    assert [entry.id for entry in await harness.streams.pending(stream, "g")] == ids
    assert not harness.place.has_key(parked_key(stream, "g"))
    assert await harness.streams.schedule_retries(stream, "g", "c1", [(ids[0], 5, 7.5)]) == [True]
    memory.free()
    assert await harness.streams.park(stream, "g", "c1", [parked(entry_id) for entry_id in ids]) == [True, True]


async def test_parked_entries_can_be_done_with(harness: Harness, memory: Memory) -> None:
    """Taking, renewing, giving back, finishing and dead-lettering are all taken: they make room."""
    stream, ids = await harness.delivered(3)
    streams = harness.streams
    await streams.park(stream, "g", "c1", [parked(entry_id) for entry_id in ids])
    memory.exhaust()
    assert len(await streams.take_parked(stream, "g", "h", now=3.0, lease=10, count=9)) == 3
    assert await streams.renew_parked(stream, "g", "h", ids, now=4.0, lease=10) == [True] * 3
    assert await streams.reschedule_parked(stream, "g", "h", [(ids[0], 4, 99.5)]) == [True]
    assert await streams.finish_parked(stream, "g", "h", ids[1:2]) == [True]
    assert await streams.dead_letter_parked(stream, "g", "h", [letter(ids[2])]) == [True]
    assert len(await streams.dead_letters(stream, "g")) == 1
    assert await streams.next_parked([(stream, "g")]) == [99.5]


async def test_checkpoints_and_suspicions_are_kept(harness: Harness, memory: Memory) -> None:
    """They are small, and needed most when things go wrong."""
    stream, ids = await harness.delivered(2)
    memory.exhaust()
    assert await harness.streams.save_checkpoints([(stream, "g")]) == [id_before(ids[0])]
    assert await harness.streams.checkpoints([(stream, "g")]) == [id_before(ids[0])]
    assert await harness.streams.suspect(stream, "g", ids) == [1, 1]
    assert await harness.streams.suspicions(stream, "g", ids) == [1, 1]


async def test_entries_change_hands_and_streams_are_cut(harness: Harness, memory: Memory) -> None:
    """Handing over, trimming and destroying need no memory."""
    stream, ids = await harness.delivered(3)
    memory.exhaust()
    assert await harness.streams.hand_over(stream, "g", "c1", "c2", [(ids[2], 1)]) == [True]
    assert await harness.streams.trim(stream, up_to=ids[0], limit=1_000) == 1
    assert await harness.streams.destroy_group(stream, "g") is True


async def test_notices_are_refused_by_name(harness: Harness, memory: Memory) -> None:
    """A notice that is not taken says why."""
    memory.exhaust()
    with pytest.raises(OutOfMemoryError) as caught:
        await harness.streams.append_notice(harness.stream(), b"n", b"x", keep=10)
    assert not isinstance(caught.value, BusUnavailable)


async def test_the_limit_and_the_policy_are_told(harness: Harness, server: Server, memory: Memory) -> None:
    """As the server has them now."""
    server.command("CONFIG", "SET", "maxmemory", 10**9)
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        assert await harness.streams.eviction_policy() == ("allkeys-lru", 10**9)
    finally:
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
