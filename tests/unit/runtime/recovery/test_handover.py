"""Who gets what a leaving worker did not begin, and what happens when word of it gets lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from hyperbus import BusUnavailable, Delivery, Event, consumer
from hyperbus.clock import SystemClock
from hyperbus.errors import ServerError
from hyperbus.runtime.coordination.notifier import Notifier
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.pending_doubt import PendingDoubt
from hyperbus.runtime.in_flight.received import receive
from hyperbus.runtime.reading import group_reader as reader
from hyperbus.runtime.recovery import reclaimer
from hyperbus.runtime.recovery.handover import HandedOver, Handover
from hyperbus.runtime.recovery.liveness import Liveness
from hyperbus.signals import Announcer, Claimed, Recovered, WorkerChanged
from hyperbus.transport import FIRST_ID, NewEntry, Streams
from tests.faults import FaultyTransport
from tests.recorder import eventually
from tests.unit.runtime.running import Running, read_ahead, unique


class Place:
    """Two streams with a group, in which "me" holds four entries of each, and others are."""

    def __init__(self, *alive: str) -> None:
        self.transport = FaultyTransport()
        self.streams = self.transport.streams
        self.given: list[HandedOver] = []
        self.living = alive
        self.doubt = PendingDoubt()
        member = Member("g", "me", cast("Streams", self.streams), SystemClock(), Announcer())
        self.handover = Handover(member, cast("Liveness", self), cast("Notifier", self), self.doubt, ordered=False)
        self.received: list[Any] = []

    async def open(self, *others: str) -> Place:
        await self.transport.open()
        reads = self.transport.inner.open_reader()
        for name in ("s1", "s2"):
            await self.streams.create_groups([(name, "g", FIRST_ID)])
            await self.streams.append([NewEntry(name, b"data", b"x")] * 4)
            [(_, entries)] = await reads.read_group("g", "me", [name], count=4, block=0)
            self.received += receive(name, "t", entries, 0.0)
            for other in others:
                await reads.read_group("g", other, [name], count=1, block=0)
        await reads.close()
        return self

    async def alive(self, names: Sequence[str]) -> list[bool]:
        return [name in self.living for name in names]

    async def notify(self, kind: bytes, body: bytes) -> None:
        self.given.append(msgspec.json.decode(body, type=HandedOver))

    async def owners(self) -> dict[str, dict[str, int]]:
        summaries = await self.streams.pending_summaries([("s1", "g"), ("s2", "g")])
        return {name: summary.consumers for name, summary in zip(("s1", "s2"), summaries, strict=True)}


async def test_each_of_the_living_gets_a_share_and_is_told() -> None:
    """The dead get nothing, and no count is raised."""
    place = await Place("a", "b").open("a", "b", "dead")
    assert await place.handover.share_out(place.received) == []
    assert await place.owners() == {"s1": {"a": 2, "b": 2}, "s2": {"a": 2, "b": 2}}
    assert sorted((given.to, given.streams) for given in place.given) == [("a", ("s1", "s2")), ("b", ("s1", "s2"))]
    pending = await place.streams.pending("s1", "g")
    assert {entry.delivery_count for entry in pending} == {1}


@pytest.mark.parametrize("count", [2, 3, 5])
async def test_what_cannot_be_shared_evenly_is_shared_all_the_same(count: int) -> None:
    """Nothing stays behind, whether there are more entries or more of the living."""
    names = [f"peer{number}" for number in range(count)]
    place = await Place(*names).open(*names)
    assert await place.handover.share_out(place.received) == []
    for owners in (await place.owners()).values():
        assert "me" not in owners
        assert sum(owners.values()) == 4


@pytest.mark.parametrize("others", [(), ("dead",)])
async def test_without_anybody_alive_all_of_it_is_left(others: tuple[str, ...]) -> None:
    """It stays pending, to be claimed."""
    place = await Place().open(*others)
    assert await place.handover.share_out(place.received) == place.received
    assert await place.owners() == {"s1": {"me": 4}, "s2": {"me": 4}}
    assert place.given == []


async def test_a_stream_that_is_refused_keeps_no_other_from_being_handed_over() -> None:
    """Who was given something is told of it all the same."""
    place = await Place("a").open("a")

    async def refuses(hand_over: Any, stream: str, *arguments: Any) -> Any:
        if stream == "s1":
            raise ServerError("no")
        return await hand_over(stream, *arguments)

    place.streams.overrides["hand_over"] = refuses
    left = await place.handover.share_out(place.received)
    assert {item.stream for item in left} == {"s1"}
    assert await place.owners() == {"s1": {"me": 4}, "s2": {"a": 4}}
    assert [given.to for given in place.given] == ["a"]


async def test_an_answer_that_was_lost_does_not_keep_the_new_owner_from_hearing() -> None:
    """The server did it and the connection broke: the new owner is told, in case."""
    place = await Place("a").open("a")

    async def breaks(hand_over: Any, *arguments: Any) -> Any:
        await hand_over(*arguments)
        raise BusUnavailable("the answer was lost")

    place.streams.overrides["hand_over"] = breaks
    assert len(await place.handover.share_out(place.received)) == 8, "it cannot know"
    assert await place.owners() == {"s1": {"a": 4}, "s2": {"a": 4}}
    assert [given.to for given in place.given] == ["a"]


async def test_entries_whose_notice_was_lost_are_found_by_their_new_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else would take them: their owner lives. So it asks, now and then, what it holds."""
    read_ahead(monkeypatch)
    monkeypatch.setattr(reclaimer, "RECOUNT", 0.05)
    monkeypatch.setattr(reclaimer, "SWEEP", 0.02)
    monkeypatch.setattr(reader, "BLOCK", 0.1)
    kind, group, seen = unique(), unique(), list[tuple[int, int]]()
    begun, release = asyncio.Event(), asyncio.Event()

    @consumer(group=group, types=[kind])
    async def stuck(event: Event) -> None:
        begun.set()
        await release.wait()

    @consumer(group=group, types=[kind], concurrency=10)
    async def free(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))

    async def refuses(*_: Any, **__: Any) -> Any:
        raise ServerError("the server is full")

    leaving = FaultyTransport()
    leaving.streams.overrides["append_notice"] = refuses
    async with Running(leaving) as here, Running(FaultyTransport(leaving.inner.separate())) as there:
        await here.publish(kind, *range(6))
        running = here.bus.running(stuck)
        await running.__aenter__()
        await asyncio.wait_for(begun.wait(), 2)
        async with there.bus.running(free):
            await there.recorder.wait_for_one(WorkerChanged)
            stopping = asyncio.create_task(running.__aexit__(None, None, None))
            await eventually(lambda: sorted(seen) == [(n, 1) for n in range(1, 6)])
            assert not stopping.done()
            release.set()
            await stopping
        assert there.recorder.of(Claimed) == []
        assert sum(signal.count for signal in there.recorder.of(Recovered)) == 5


async def test_a_worker_that_just_became_ready_is_handed_over_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known to the group before it says that it is ready."""
    read_ahead(monkeypatch)
    kind, group, seen = unique(), unique(), list[int]()
    begun, release = asyncio.Event(), asyncio.Event()

    @consumer(group=group, types=[kind], concurrency=1)
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])
        begun.set()
        await release.wait()

    leaving, staying = FaultyTransport(), None
    async with Running(leaving) as here:
        staying = FaultyTransport(leaving.inner.separate())

        async def slow(read: Any, *arguments: Any, **options: Any) -> Any:
            await asyncio.sleep(0.3)
            return await read(*arguments, **options)

        staying.reader_overrides["read_group"] = slow
        async with Running(staying) as there:
            await here.publish(kind, 1, 2)
            running = here.bus.running(handler)
            await running.__aenter__()
            await asyncio.wait_for(begun.wait(), 2)
            async with there.bus.running(handler):
                stopping = asyncio.create_task(running.__aexit__(None, None, None))
                await eventually(lambda: leaving.streams.called("hand_over"))
                await eventually(lambda: seen == [1, 2])
                release.set()
                await stopping


@pytest.mark.parametrize("odd", ["s1", "s2"])
async def test_a_stream_that_is_refused_costs_the_entries_of_others_no_try(odd: str) -> None:
    """Where nobody lives, what was not begun gets back the count that it came with."""
    place = await Place().open()

    async def refuses(write: Any, stream: str, *arguments: Any) -> Any:
        if stream == odd:
            raise ServerError("no")
        return await write(stream, *arguments)

    place.streams.overrides["set_delivery_counts"] = refuses
    await place.handover.give(place.received)
    counts = {name: {entry.delivery_count for entry in await place.streams.pending(name, "g")} for name in ("s1", "s2")}
    assert counts == {name: {1} if name == odd else {0} for name in ("s1", "s2")}
