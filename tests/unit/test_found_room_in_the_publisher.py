"""Found by use: many publishes awaited at once, of which most timed out with the server idle."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbus import BusUnavailable
from tests.faults import FaultyTransport
from tests.unit.publisher.publishing import Gate, Placed, a_bus, numbers


async def test_far_more_publishes_than_have_room_are_all_stored() -> None:
    """A place that is free wakes one of those who wait, not all: their number costs nothing."""
    transport = FaultyTransport()
    async with a_bus(transport, publish_buffer=20, publish_timeout=10.0) as bus:
        results = await asyncio.gather(*[bus.publish(Placed(number=n)) for n in range(20_000)], return_exceptions=True)
    assert [result for result in results if not isinstance(result, str)] == []


async def test_room_is_given_first_come_first_served() -> None:
    """Those who wait are stored in the order in which they came, and nobody who comes later overtakes them."""
    transport = FaultyTransport()
    async with a_bus(transport, publish_buffer=3, publish_timeout=30.0) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        tasks = [asyncio.create_task(bus.publish(Placed(number=n))) for n in range(50)]
        await gate.reached.wait()
        gate.open.set()
        await asyncio.wait(tasks[:4], return_when=asyncio.FIRST_COMPLETED)
        tasks.append(asyncio.create_task(bus.publish(Placed(number=50))))
        await asyncio.gather(*tasks)
        assert await numbers(transport) == list(range(51))


@pytest.mark.parametrize("gives_up", ["cancelled", "timed out"])
async def test_who_gives_up_waiting_passes_its_place_on(gives_up: str) -> None:
    """Among those who wait, and at the moment in which it would have had a place; nobody loses theirs."""
    transport = FaultyTransport()
    async with a_bus(transport, publish_buffer=1, publish_timeout=30.0) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        first = asyncio.create_task(bus.publish(Placed(number=0)))
        await gate.reached.wait()
        timeout = 0.02 if gives_up == "timed out" else None
        impatient = [asyncio.create_task(bus.publish(Placed(number=n), timeout=timeout)) for n in (1, 2)]
        patient = [asyncio.create_task(bus.publish(Placed(number=n))) for n in (3, 4)]
        await asyncio.sleep(0)
        if gives_up == "cancelled":
            impatient[0].cancel()
            gate.open.set()
            await first
            impatient[1].cancel()  # it has its place by now, or has it next
        else:
            await asyncio.wait(impatient)
            gate.open.set()
        ended = await asyncio.gather(*impatient, return_exceptions=True)
        assert all(isinstance(end, BusUnavailable | asyncio.CancelledError | str) for end in ended)
        await asyncio.wait_for(asyncio.gather(*patient), 10)
        assert [n for n in await numbers(transport) if n in (0, 3, 4)] == [0, 3, 4]
        await asyncio.wait_for(bus.publish(Placed(number=5)), 10)


async def test_a_large_event_that_gives_up_lets_smaller_ones_pass() -> None:
    """It was the first who waited, and the others did fit."""
    transport = FaultyTransport()
    async with a_bus(transport, publish_buffer_bytes=2_000, publish_timeout=30.0) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        held = asyncio.create_task(bus.publish(Placed(number=0)))
        await gate.reached.wait()
        large = asyncio.create_task(bus.publish(Placed(number=1, text="x" * 5_000)))
        await asyncio.sleep(0)
        small = [asyncio.create_task(bus.publish(Placed(number=n))) for n in (2, 3)]
        await asyncio.sleep(0)
        large.cancel()
        gate.open.set()
        await asyncio.wait_for(asyncio.gather(held, *small), 10)
        assert await numbers(transport) == [0, 2, 3]


async def test_a_caller_that_is_cancelled_while_its_event_is_under_way_fails_no_neighbour() -> None:
    """Whether the answer comes in parts or as a whole: the others of the round trip have theirs."""
    transport, halted, rest = FaultyTransport(), asyncio.Event(), asyncio.Event()

    async def halts(append: Any, entries: Any, tell: Any) -> Any:
        entries = list(entries)
        stored = await append(entries)
        halted.set()
        await rest.wait()
        tell(stored[:3])
        return stored

    async with a_bus(transport, publish_timeout=30.0) as bus:
        await bus.publish(Placed(number=0))
        transport.streams.overrides["append"] = halts
        tasks = [asyncio.create_task(bus.publish(Placed(number=n))) for n in range(1, 7)]
        await halted.wait()
        tasks[1].cancel()
        tasks[4].cancel()
        await asyncio.sleep(0)
        rest.set()
        ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert [isinstance(end, str) for end in ends] == [True, False, True, True, False, True]
        del transport.streams.overrides["append"]
        await asyncio.wait_for(bus.publish(Placed(number=7)), 10)


async def test_publish_many_asks_less_and_less_often_while_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pause is twice the last, up to a second; after a part was stored they begin anew."""
    transport, pauses = FaultyTransport(), []

    async def sleep(_clock: Any, seconds: float) -> None:
        pauses.append(round(seconds, 3))

    calls = 0

    async def mostly_away(append: Any, entries: Any, **_named: Any) -> Any:
        nonlocal calls
        entries = list(entries)
        if entries[0].stream.startswith("hyperbus:"):
            return await append(entries)
        calls += 1
        if calls == 7:  # one is stored, the others are not
            return [*await append(entries[:1]), *[BusUnavailable("away") for _ in entries[1:]]]
        return await append(entries) if calls == 9 else [BusUnavailable("away") for _ in entries]

    monkeypatch.setattr("hyperbus.clock.SystemClock.sleep", sleep)
    transport.streams.overrides["append"] = mostly_away
    async with a_bus(transport, publish_timeout=60.0) as bus:
        await bus.publish_many([Placed(number=n) for n in range(3)])
        assert await numbers(transport) == [0, 1, 2]
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 0.05, 0.1]
