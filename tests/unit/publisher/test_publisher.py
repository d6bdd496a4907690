"""Publishing, through the bus, on memory; a transport around it fails where a test wants it to."""

from __future__ import annotations

import asyncio

import pytest

from hyperbus import BusUnavailable, Event
from tests.faults import FaultyTransport
from tests.unit.publisher.publishing import STREAM, Placed, a_bus, stored_after_close


async def test_closing_sends_what_still_waits() -> None:
    """Events that were handed over before the bus closed are stored, and their callers told."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        publishing = [asyncio.create_task(bus.publish(Placed(number=n))) for n in range(3)]
        await asyncio.sleep(0)
    assert all(isinstance(task.result(), str) for task in publishing)
    assert await stored_after_close(transport) == [0, 1, 2]


async def test_a_closed_bus_refuses_to_publish() -> None:
    """Before and after its time, every way in says what to do."""
    bus = a_bus(FaultyTransport())
    for _ in range(2):
        with pytest.raises(BusUnavailable, match="async with"):
            await bus.publish(Placed())
        with pytest.raises(BusUnavailable, match="async with"):
            await bus.publish_many([Placed()])
        async with bus:
            await bus.publish(Placed())


async def test_what_is_given_with_the_call_wins_over_the_event() -> None:
    """`source_agent` falls back to the bus's own; workflow and correlation come from call or event."""
    import msgspec

    transport = FaultyTransport()
    async with a_bus(transport, source_agent="coordinator") as bus:
        await bus.publish(Placed(), workflow_id="w", correlation_id="c")
        await bus.publish(Event(data=Placed()))
        await bus.publish(Event(data=Placed(), source_agent="own", workflow_id="old", correlation_id="old"))
        await bus.publish(
            Event(data=Placed(), source_agent="own", workflow_id="old", correlation_id="old"),
            source_agent="given",
            workflow_id="new",
            correlation_id="newer",
        )
        entries = await transport.inner.streams.range(STREAM)
    seen = [msgspec.json.decode(entry.fields[1]) for entry in entries]
    assert [(e.get("source_agent"), e.get("workflow_id"), e.get("correlation_id")) for e in seen] == [
        ("coordinator", "w", "c"),
        ("coordinator", None, None),
        ("own", "old", "old"),
        ("given", "new", "newer"),
    ]
