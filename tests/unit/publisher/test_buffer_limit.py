"""What may wait in a publisher, and who waits when it is full."""

from __future__ import annotations

import asyncio

import pytest

from hyperbus import BusUnavailable
from hyperbus.clock import SystemClock
from hyperbus.publisher.buffer_limit import BufferLimit
from tests.faults import FaultyTransport
from tests.unit.publisher.publishing import Gate, Placed, a_bus, away, numbers


async def test_publish_waits_for_room_and_gives_up_at_its_deadline() -> None:
    """A full buffer makes the next publisher wait, and tells it at its deadline that nothing was sent."""
    transport = FaultyTransport()
    async with a_bus(transport, publish_buffer=2) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        held = [asyncio.create_task(bus.publish(Placed(number=n))) for n in range(2)]
        await gate.reached.wait()
        with pytest.raises(BusUnavailable, match="no room"):
            await bus.publish(Placed(number=9), timeout=0.02)
        waiting = asyncio.create_task(bus.publish(Placed(number=2)))
        gate.open.set()
        await asyncio.gather(*held, waiting)
        assert await numbers(transport) == [0, 1, 2]


async def test_room_is_counted_in_bytes_too() -> None:
    """A large event fills the buffer by itself, yet one that is alone always fits."""
    transport = FaultyTransport()
    async with a_bus(transport, publish_buffer_bytes=1000) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        large = asyncio.create_task(bus.publish(Placed(text="x" * 5000)))
        await gate.reached.wait()
        with pytest.raises(BusUnavailable, match="no room"):
            await bus.publish(Placed(), timeout=0.02)
        gate.open.set()
        await large


async def test_room_of_events_whose_time_was_over_is_free_again() -> None:
    """Who waits for room gets it when those in the buffer have given up, and not only when something was sent."""
    transport = FaultyTransport()
    async with a_bus(transport, publish_buffer=1) as bus:
        transport.records.overrides["touch_members"] = away(3)
        hopeless = asyncio.create_task(bus.publish(Placed(number=1), timeout=0.02))
        await asyncio.sleep(0)
        patient = asyncio.create_task(bus.publish(Placed(number=2), timeout=2.0))
        with pytest.raises(BusUnavailable):
            await hopeless
        await asyncio.wait_for(patient, 1.0)
        assert await numbers(transport) == [2]


async def test_who_waits_for_room_while_the_bus_closes_is_told() -> None:
    """A publisher without room learns that its event was not sent."""
    transport = FaultyTransport()
    bus = a_bus(transport, publish_buffer=1)
    async with bus:
        gate = transport.streams.overrides["append"] = Gate()
        first = asyncio.create_task(bus.publish(Placed(number=1)))
        await gate.reached.wait()
        second = asyncio.create_task(bus.publish(Placed(number=2)))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.02, gate.open.set)
    assert isinstance(await first, str)
    with pytest.raises(BusUnavailable, match="closed"):
        await second


async def test_closing_tells_all_who_wait_for_room() -> None:
    """At once, and not when there is room."""
    limit = BufferLimit(SystemClock(), 1, 1_000)
    assert limit.try_acquire(10)
    waiting = [asyncio.create_task(limit.acquire(10, SystemClock().monotonic() + 600)) for _ in range(3)]
    await asyncio.sleep(0)
    limit.close()
    assert await asyncio.wait_for(asyncio.gather(*waiting), 10) == [False, False, False]


async def acquired(limit: BufferLimit, *sizes: int) -> list[asyncio.Task[bool]]:
    """Let somebody wait for each of these places, in this order."""
    waiting = [asyncio.create_task(limit.acquire(size, SystemClock().monotonic() + 30)) for size in sizes]
    await asyncio.sleep(0)
    return waiting


async def test_a_place_whose_taker_gave_up_at_that_moment_is_the_next_ones() -> None:
    """It was given, and never taken."""
    limit = BufferLimit(SystemClock(), 1, 1_000)
    assert limit.try_acquire(1)
    first, second = await acquired(limit, 1, 1)
    limit.release(1, 1)
    first.cancel()
    assert await asyncio.wait_for(second, 10)
    assert first.cancelled()


async def test_who_waited_behind_one_that_gave_up_need_not_wait_for_a_place() -> None:
    """The others fitted all the time."""
    limit = BufferLimit(SystemClock(), 10, 1_000)
    assert limit.try_acquire(900)
    large, small = await acquired(limit, 500, 50)
    assert not limit.try_acquire(50), "nobody overtakes"
    large.cancel()
    assert await asyncio.wait_for(small, 10)
    assert limit.try_acquire(50)


async def test_as_many_as_fit_are_woken_and_no_more() -> None:
    """A large place that is free is room for several small ones."""
    limit = BufferLimit(SystemClock(), 10, 1_000)
    assert limit.try_acquire(1_000)
    waiting = await acquired(limit, 400, 400, 400, 100)
    limit.release(1, 1_000)
    assert [await waiting[0], await waiting[1]] == [True, True]
    assert [each.done() for each in waiting[2:]] == [False, False]
    limit.close()
    assert [await waiting[2], await waiting[3]] == [False, False]
