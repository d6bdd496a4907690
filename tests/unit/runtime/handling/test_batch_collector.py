"""How batches are gathered: for how long one waits to fill up, and what ends that at once."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from hyperbus import Event, consumer
from hyperbus.clock import SystemClock
from hyperbus.runtime.handling.batch_collector import BatchCollector
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import Received
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique


class Ticking(SystemClock):
    """A second passes at each look."""

    def __init__(self) -> None:
        self.looks = 0
        self._times = map(float, itertools.count())

    def monotonic(self) -> float:  # type: ignore[override]
        self.looks += 1
        return next(self._times)


def entry(number: int, *, alone: bool = False) -> Received:
    return Received("s", "t", b"%d-0" % number, [b"data", b"x"], 1, 0.0, alone=alone)


@pytest.mark.parametrize("size", [2, 3, 5])
async def test_a_batch_of_any_size_waits_to_fill_up(size: int) -> None:
    """One of two, too; it is handed over as soon as it is full, long before it has waited enough."""
    kind, group, batches = unique(), unique(), list[list[int]]()

    @consumer(group=group, types=[kind], batch=size, linger=60)
    async def handler(events: list[Event]) -> None:
        batches.append([event.data["n"] for event in events])

    async with Running() as here, here.bus.running(handler):
        for number in range(size):
            assert batches == []
            await here.publish(kind, number)
            async with asyncio.timeout(10):
                while len(await here.pending(kind, group)) <= number and not batches:
                    await asyncio.sleep(0.002)
        await eventually(lambda: batches == [list(range(size))])


async def test_what_has_to_be_alone_ends_the_wait_of_those_before_it() -> None:
    """Nothing can join the batch any more; it neither waits nor looks at the clock again and again."""
    inbox, clock = Inbox(100, 100_000), Ticking()
    inbox.put("s", [entry(1), entry(2), entry(3, alone=True), entry(4)])
    first = inbox.take()
    assert first is not None
    batch = await BatchCollector(inbox, clock, 10, 1_000.0).collect(first)
    assert [item.id for item in batch] == [b"1-0", b"2-0"]
    assert clock.looks <= 2
    assert inbox.waiting == 2


async def test_what_has_to_be_alone_ends_the_wait_when_it_comes() -> None:
    """So does the end of the worker."""
    inbox = Inbox(100, 100_000)
    inbox.put("s", [entry(1)])
    first = inbox.take()
    assert first is not None
    collecting = asyncio.create_task(BatchCollector(inbox, SystemClock(), 10, 60.0).collect(first))
    await asyncio.sleep(0)
    assert not collecting.done()
    inbox.put("s", [entry(2, alone=True)])
    assert await asyncio.wait_for(collecting, 10) == [first]
    collecting = asyncio.create_task(BatchCollector(inbox, SystemClock(), 10, 60.0).collect(entry(5)))
    inbox.take()
    await asyncio.sleep(0)
    assert not collecting.done()
    inbox.close()
    assert len(await asyncio.wait_for(collecting, 10)) == 1


class Standing(SystemClock):
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:  # type: ignore[override]
        return self.time


async def test_a_batch_that_fills_drop_by_drop_waits_no_longer_than_it_may_linger() -> None:
    """Each entry that comes ends no wait, and begins none anew."""
    inbox, clock = Inbox(100, 100_000), Standing()
    collecting = asyncio.create_task(BatchCollector(inbox, clock, 100, 1_000.0).collect(entry(0)))
    for number in (1, 2):
        for _ in range(5):
            await asyncio.sleep(0)
        assert not collecting.done()
        clock.time += 600.0
        inbox.put("s", [entry(number)])
    batch = await asyncio.wait_for(collecting, 10)
    assert [item.id for item in batch] == [b"0-0", b"1-0", b"2-0"]
