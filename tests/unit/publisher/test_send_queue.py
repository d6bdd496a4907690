"""Publishes of many tasks, on memory: what shares a round trip, what is sent again, and what each caller is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbus import BusUnavailable, Event, PublishUncertain
from hyperbus.errors import (
    PublishRefusedError,
)
from hyperbus.signals import ConnectionChanged
from tests.faults import FaultyTransport
from tests.recorder import Recorder, eventually
from tests.unit.publisher.publishing import STREAM, Gate, Placed, a_bus, appended, away, numbers, stored_after_close


async def test_publishes_side_by_side_share_a_round_trip() -> None:
    """What gathers while a round trip is under way goes out in the next one, whole and in order."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        await bus.publish(Placed(number=0))
        gate = transport.streams.overrides["append"] = Gate()
        first = asyncio.create_task(bus.publish(Placed(number=1)))
        await gate.reached.wait()
        others = [asyncio.create_task(bus.publish(Placed(number=n))) for n in range(2, 50)]
        await asyncio.sleep(0)
        gate.open.set()
        ids = await asyncio.gather(first, *others)
    assert [len(entries) for entries in appended(transport)] == [1, 1, 48]
    assert await stored_after_close(transport) == list(range(50))
    assert ids == sorted(ids, key=lambda text: tuple(map(int, text.split("-"))))


async def test_who_is_answered_first_goes_on_first() -> None:
    """A publisher whose event is stored does not wait for the others of its round trip, whatever becomes of those."""
    transport, rest = FaultyTransport(), asyncio.Event()

    async def halts(append: Any, entries: Any, tell: Any) -> Any:
        entries = list(entries)
        tell(stored := await append(entries[:3]))
        await rest.wait()
        return stored + [PublishUncertain("the connection broke") for _ in entries[3:]]

    async with a_bus(transport) as bus:
        await bus.publish(Placed(number=0))
        transport.streams.overrides["append"] = halts
        tasks = [asyncio.create_task(bus.publish(Placed(number=n))) for n in range(1, 6)]
        ids = await asyncio.wait_for(asyncio.gather(*tasks[:3]), 1)
        assert not tasks[3].done()
        rest.set()
        for task in tasks[3:]:
            with pytest.raises(PublishUncertain, match="broke"):
                await task
        entries = await transport.inner.streams.range(STREAM)
    assert [entry.id.decode() for entry in entries[1:]] == ids


async def test_an_answer_that_does_not_come_is_uncertain_and_nothing_is_sent_twice() -> None:
    """What was sent and not answered in time is reported as such, and never sent again."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        with pytest.raises(PublishUncertain, match="may be stored"):
            await bus.publish(Placed(number=1), timeout=0.02)
        gate.open.set()
        await bus.publish(Placed(number=2))
        assert await numbers(transport) == [1, 2]


async def test_what_the_transport_calls_uncertain_is_not_sent_again() -> None:
    """A broken connection after sending reaches the caller; there is one append and no second."""
    transport = FaultyTransport()

    async def breaks(append: Any, entries: Any, **_named: Any) -> Any:
        return [PublishUncertain("the connection broke") for _ in entries]

    async with a_bus(transport) as bus:
        await bus.publish(Placed(number=1))
        transport.streams.overrides["append"] = breaks
        with pytest.raises(PublishUncertain, match="broke"):
            await bus.publish(Placed(number=2))
        del transport.streams.overrides["append"]
        await bus.publish(Placed(number=3))
    assert [len(entries) for entries in appended(transport)] == [1, 1, 1]


async def test_a_refusal_reaches_only_the_event_it_is_for() -> None:
    """A key that is no stream refuses its own event and stores the neighbours of the same round trip."""
    transport = FaultyTransport()
    transport.inner.set_value("events:publisher_test.refused", b"x")
    async with a_bus(transport) as bus:
        refused, stored = await asyncio.gather(
            bus.publish(Event(type="publisher_test.refused", data={})), bus.publish(Placed()), return_exceptions=True
        )
        assert isinstance(refused, PublishRefusedError)
        assert isinstance(stored, str)


async def test_while_the_server_is_away_what_was_not_sent_is_tried_again() -> None:
    """An outage shorter than the timeout is not seen by the caller, and both its ends are announced."""
    transport, recorder = FaultyTransport(), Recorder()
    async with a_bus(transport, listeners=[recorder]) as bus:
        await bus.publish(Placed(number=0))
        transport.streams.overrides["append"] = away(2)
        await asyncio.gather(*(bus.publish(Placed(number=n)) for n in range(1, 4)))
        assert await numbers(transport) == [0, 1, 2, 3]
    changes = recorder.of(ConnectionChanged)
    assert {change.kind for change in changes} == {"publisher"}
    assert [(change.part, change.connected, change.error) for change in changes] == [
        ("publisher", False, "nobody is there"),
        ("publisher", True, ""),
    ]


async def test_an_event_reported_as_not_sent_is_never_sent() -> None:
    """Its time is over while its stream is being listed: the caller hears "not sent", and that stays true."""
    transport = FaultyTransport()
    listing = asyncio.Event()

    async def slow(add: Any, *arguments: Any) -> Any:
        await listing.wait()
        return await add(*arguments)

    transport.records.overrides["touch_members"] = slow
    async with a_bus(transport) as bus:
        with pytest.raises(BusUnavailable, match="not sent in time"):
            await bus.publish(Placed(number=1), timeout=0.02)
        listing.set()
        await bus.publish(Placed(number=2))
        assert await numbers(transport) == [2]


async def test_a_server_that_stays_away_ends_in_bus_unavailable_by_the_deadline() -> None:
    """The caller learns that nothing was sent, and what the last error was."""
    transport = FaultyTransport()
    transport.streams.overrides["append"] = away(10**6)
    async with a_bus(transport) as bus:
        started = asyncio.get_running_loop().time()
        results = await asyncio.gather(
            bus.publish(Placed(), timeout=0.3), bus.publish(Placed(), timeout=0.05), return_exceptions=True
        )
        assert [type(result) for result in results] == [BusUnavailable, BusUnavailable]
        assert "nobody is there" in str(results[0])
        assert asyncio.get_running_loop().time() - started < 1.5


async def test_a_caller_that_is_cancelled_before_sending_sends_nothing() -> None:
    """A publish that was cancelled while it waited in the buffer leaves no entry behind."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        first = asyncio.create_task(bus.publish(Placed(number=1)))
        await gate.reached.wait()
        second = asyncio.create_task(bus.publish(Placed(number=2)))
        await asyncio.sleep(0)
        second.cancel()
        third = asyncio.create_task(bus.publish(Placed(number=3)))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, third)
        assert second.cancelled()
        assert await numbers(transport) == [1, 3]


async def test_an_append_that_breaks_its_contract_leaves_nobody_waiting() -> None:
    """Whatever a transport raises, the callers whose events were under way hear of it, and the next one is served."""
    transport = FaultyTransport()

    async def breaks(*_: Any, **_named: Any) -> Any:
        raise ZeroDivisionError

    transport.streams.overrides["append"] = breaks
    async with a_bus(transport) as bus:
        for _ in range(2):
            with pytest.raises(PublishUncertain, match="ZeroDivisionError"):
                await bus.publish(Placed())
        del transport.streams.overrides["append"]
        await bus.publish(Placed(number=1))
        assert await numbers(transport) == [1]


async def test_a_deadline_in_the_buffer_is_kept_beside_later_ones() -> None:
    """A short timeout that comes after a long one is over at its own time."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        first = asyncio.create_task(bus.publish(Placed(number=1), timeout=60.0))
        await gate.reached.wait()
        second = asyncio.create_task(bus.publish(Placed(number=2), timeout=0.02))
        await eventually(second.done)
        with pytest.raises(BusUnavailable, match="not sent in time"):
            await second
        gate.open.set()
        await first
        assert await numbers(transport) == [1]


async def test_each_of_several_callers_is_told_at_its_own_time() -> None:
    """Not when the last one's is over, in whichever order they came."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        await bus.publish(Placed(number=0))
        gate = transport.streams.overrides["append"] = Gate()
        times = [600, 0.02, 0.06, 300, 0.1]
        tasks = [asyncio.create_task(bus.publish(Placed(number=n), timeout=time)) for n, time in enumerate(times)]
        for task, time in zip(tasks, times, strict=True):
            if time < 1:
                with pytest.raises(PublishUncertain):
                    await asyncio.wait_for(task, 10)
        assert [task.done() for task in tasks] == [time < 1 for time in times]
        gate.open.set()
        assert len(await asyncio.gather(tasks[0], tasks[3])) == 2
