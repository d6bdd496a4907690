"""What is due beside an append: the directory of streams, and what is announced."""

from __future__ import annotations

from typing import Any

from hyperbus import Event
from hyperbus.clock import SystemClock
from hyperbus.errors import (
    OutOfMemoryError,
)
from hyperbus.publisher.appender import PLAIN, REFRESH, Appender
from hyperbus.signals import Announcer, ConnectionChanged, Published, PublishErred
from hyperbus.transport import record_names
from tests.faults import FaultyTransport
from tests.recorder import Recorder
from tests.unit.publisher.publishing import STREAM, Placed, a_bus, away, numbers


async def test_an_outage_that_meets_the_directory_first_is_announced_too() -> None:
    """A new stream is listed before its first entry; a server that is away by then is told as away."""
    transport, recorder = FaultyTransport(), Recorder()
    transport.records.overrides["touch_members"] = away(1)
    async with a_bus(transport, listeners=[recorder]) as bus:
        await bus.publish(Placed())
    assert [change.connected for change in recorder.of(ConnectionChanged)] == [False, True]
    assert recorder.of(PublishErred)[0] == PublishErred(1, "BusUnavailable")


async def test_a_stream_is_listed_and_its_birth_announced_once() -> None:
    """The directory has it before its first entry; only its first publisher announces it."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        await bus.publish(Placed())
        await bus.publish(Placed())
        assert [name for name, _ in await transport.records.members(record_names.STREAM_DIRECTORY)] == [STREAM]
        (births,) = await transport.streams.scan("hyperbus:*")
        (entry,) = await transport.streams.range(births)
        assert STREAM.encode() in entry.fields
    assert [name for name, _ in transport.records.calls].count("touch_members") == 1


async def test_a_directory_that_is_refused_does_not_hold_back_events() -> None:
    """A server without memory may still take the event; the scan finds the stream."""
    transport = FaultyTransport()

    async def full(*_: Any) -> Any:
        raise OutOfMemoryError("full")

    transport.records.overrides["touch_members"] = full
    async with a_bus(transport) as bus:
        await bus.publish(Placed(number=7))
        assert await numbers(transport) == [7]


async def test_what_was_published_is_announced_by_type() -> None:
    """One signal a round trip, with the count of each event type."""
    transport, recorder = FaultyTransport(), Recorder()
    async with a_bus(transport, listeners=[recorder]) as bus:
        await bus.publish_many([Placed(), Placed(), Event(type="publisher_test.other", data={})])
    (published,) = recorder.of(Published)
    assert published.counts == {"publisher_test.placed": 2, "publisher_test.other": 1}
    assert published.seconds >= 0


async def test_a_directory_that_the_server_lost_has_its_streams_again_after_a_while() -> None:
    """Globs find them, though their publisher has listed them before."""
    transport, clock = FaultyTransport(), HandClock()
    appender = Appender(transport, Announcer(), clock, prefix="events", once_window=600)
    streams = ["events:a", "events:b"]
    assert await appender.prepare(streams, PLAIN) is None
    await transport.inner.records.delete([record_names.STREAM_DIRECTORY])
    clock.time += REFRESH / 2
    assert await appender.prepare(streams, PLAIN) is None
    assert await transport.inner.records.members(record_names.STREAM_DIRECTORY) == []
    clock.time += REFRESH
    assert await appender.prepare(streams, PLAIN) is None
    assert sorted(name for name, _ in await transport.inner.records.members(record_names.STREAM_DIRECTORY)) == streams


class HandClock(SystemClock):
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 1_000.0
        self.now = self.monotonic = lambda: self.time  # type: ignore[method-assign]
