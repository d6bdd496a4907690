"""What the tests of publishing share: an event, a bus on a transport that fails on demand, and what is stored there."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from hyperbus import Bus, BusUnavailable, EventData
from hyperbus.settings import Settings
from tests.faults import FaultyTransport

STREAM = "events:publisher_test.placed"


class Placed(EventData, type="publisher_test.placed"):
    number: int = 0
    text: str = ""


def a_bus(transport: FaultyTransport, *, listeners: Any = (), source_agent: str | None = None, **settings: Any) -> Bus:
    chosen = Settings(**{"publish_timeout": 2.0, **settings})
    return Bus(transport=transport, settings=chosen, listeners=listeners, source_agent=source_agent)


def appended(transport: FaultyTransport) -> list[list[Any]]:
    """The entries of each round trip, without the announcements of new streams."""
    calls = [list(entries) for (entries,) in transport.streams.called("append")]
    return [entries for entries in calls if not entries[0].stream.startswith("hyperbus:")]


async def numbers(transport: FaultyTransport, stream: str = STREAM) -> list[int]:
    entries = await transport.inner.streams.range(stream, count=10_000)
    return [msgspec.json.decode(entry.fields[1])["data"]["number"] for entry in entries]


async def stored_after_close(transport: FaultyTransport, stream: str = STREAM) -> list[int]:
    await transport.open()
    try:
        return await numbers(transport, stream)
    finally:
        await transport.close()


class Gate:
    """An append that waits until it is let through."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, append: Any, entries: Any, **_named: Any) -> Any:
        entries = list(entries)
        if entries and entries[0].stream.startswith("hyperbus:"):
            return await append(entries)
        self.reached.set()
        await self.open.wait()
        return await append(entries)


def away(times: int) -> Any:
    """A method that cannot reach the server for the first `times` calls."""
    left = [times]

    async def method(original: Any, *arguments: Any, **named: Any) -> Any:
        if left[0] <= 0:
            return await original(*arguments, **named)
        left[0] -= 1
        error = BusUnavailable("nobody is there")
        if original.__name__ == "append":
            return [error for _ in arguments[0]]
        raise error

    return method
