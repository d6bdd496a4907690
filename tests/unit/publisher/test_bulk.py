"""`publish_many`, on memory: its round trips, and what becomes of each event."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from hyperbus import BusUnavailable, Event, PublishFailed, PublishUncertain
from hyperbus.errors import (
    EncodeError,
    EventTooLargeError,
)
from hyperbus.publisher.publisher import MANY
from hyperbus.transport import record_names
from tests.faults import FaultyTransport
from tests.unit.publisher.publishing import STREAM, Gate, Placed, a_bus, appended, away, numbers, stored_after_close


async def test_what_becomes_of_the_callers_list_changes_nothing() -> None:
    """The events are those of the moment of the call, of whatever kind of sequence."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        await bus.publish_many(deque([Placed(number=n) for n in range(50)]))
        gate = transport.streams.overrides["append"] = Gate()
        events = [Placed(number=n) for n in range(50, 3_000)]
        publishing = asyncio.create_task(bus.publish_many(events))
        await gate.reached.wait()
        events.clear()
        gate.open.set()
        assert len(await publishing) == 2_950
        assert await numbers(transport) == list(range(3_000))


async def test_publish_many_keeps_order_in_one_round_trip_for_each_2000() -> None:
    """Ids come back in the order of the events, also where a bulk has a stream that is new."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        await bus.publish(Placed(number=-1))

        async def slow(add: Any, *arguments: Any) -> Any:
            for _ in range(20):
                await asyncio.sleep(0)
            return await add(*arguments)

        transport.records.overrides["touch_members"] = slow
        events: list[Any] = [Placed(number=n) for n in range(2 * MANY)]
        events[0] = Event(type="publisher_test.born", data={"number": 0})
        ids = await bus.publish_many(events)
        assert len(ids) == 2 * MANY
        assert await numbers(transport) == [-1, *range(1, 2 * MANY)]
    assert [len(entries) for entries in appended(transport)] == [1, MANY, MANY]
    assert await stored_after_close(transport, "events:publisher_test.born") == [0]


async def test_publish_many_of_nothing_is_nothing() -> None:
    """No events, no ids, no round trip."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        assert await bus.publish_many([]) == []
    assert appended(transport) == []


async def test_publish_many_tells_what_became_of_each_event() -> None:
    """One that cannot be encoded and one that is too large hold back nobody; results are in order."""
    transport, seen = FaultyTransport(), []
    async with a_bus(transport, max_event_bytes=1000) as bus:
        bus.on_publish("*", lambda event: seen.append(event.data))
        with pytest.raises(PublishFailed, match="2 of 4 events stored, 0 uncertain, 2 not stored") as caught:
            await bus.publish_many(
                [
                    Placed(number=1),
                    Event(type="publisher_test.placed", data={"what": object()}),
                    Placed(text="x" * 2000),
                    Placed(number=2),
                ]
            )
        first, unencodable, large, last = caught.value.results
        assert isinstance(first, str)
        assert isinstance(last, str)
        assert isinstance(unencodable, EncodeError)
        assert isinstance(large, EventTooLargeError)
        assert await numbers(transport) == [1, 2]
    assert [data.number for data in seen] == [1, 2], "local handlers see what was stored, of a failed call too"


async def test_publish_many_tries_again_what_was_not_sent() -> None:
    """An outage in the middle delays the rest and keeps the order."""
    transport = FaultyTransport()
    transport.streams.overrides["append"] = away(2)
    async with a_bus(transport) as bus:
        await bus.publish_many([Placed(number=n) for n in range(MANY + 5)])
        assert await numbers(transport) == list(range(MANY + 5))


async def test_publish_many_gives_up_at_its_deadline() -> None:
    """None was sent: `BusUnavailable`. Sent and not answered: each is uncertain."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        transport.records.overrides["touch_members"] = away(10**6)
        with pytest.raises(BusUnavailable, match="none of 2 events was sent"):
            await bus.publish_many([Placed(), Placed()], timeout=0.06)
        transport.records.overrides["touch_members"] = lambda *_: asyncio.Event().wait()
        with pytest.raises(BusUnavailable, match="not sent in time"):
            await bus.publish_many([Placed()], timeout=0.02)
        del transport.records.overrides["touch_members"]
        transport.streams.overrides["append"] = Gate()
        await transport.inner.records.add_members(record_names.STREAM_DIRECTORY, {STREAM: 1.0})
        with pytest.raises(PublishFailed) as caught:
            await bus.publish_many([Placed()], timeout=0.02)
        assert isinstance(caught.value.results[0], PublishUncertain)


async def test_a_cancelled_publish_many_leaves_no_task_behind() -> None:
    """Its round trip is ended before the caller goes on."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        await transport.inner.records.add_members(record_names.STREAM_DIRECTORY, {STREAM: 1.0})
        publishing = asyncio.create_task(bus.publish_many([Placed()]))
        await gate.reached.wait()
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "hyperbus publish_many"]
