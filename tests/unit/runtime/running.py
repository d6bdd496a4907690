"""A bus on memory with short times, names of a test's own, and a fake worker that died."""

from __future__ import annotations

import itertools
import os
from typing import Any, Self

import msgspec
import pytest

from hyperbus import Bus, Event
from hyperbus.runtime.in_flight.pace import Pace
from hyperbus.settings import Settings
from hyperbus.transport import NewEntry
from tests.faults import FaultyTransport
from tests.recorder import Recorder

_numbers = itertools.count()


def unique(word: str = "t") -> str:
    """Return a name that no other test uses; it can be an event type and a group."""
    return f"{word}{os.getpid()}_{next(_numbers)}"


def read_ahead(monkeypatch: pytest.MonkeyPatch, entries: int = 10_000) -> None:
    """Let workers hold as many entries that wait for their handlers, as those do whose handlers were quick so far."""
    monkeypatch.setattr(Pace, "within", lambda _self, _seconds: entries)


class Running:
    """A bus on memory, what it announces, and what a test does behind its back."""

    def __init__(self, transport: FaultyTransport | None = None, **settings: Any) -> None:
        self.transport = transport or FaultyTransport()
        self.memory = self.transport.inner
        self.recorder = Recorder()
        chosen = {"heartbeat_ttl": 0.2, "drain_timeout": 1.0, "scan_interval": 0.2, **settings}
        self.bus = Bus(transport=self.transport, settings=Settings(**chosen), listeners=[self.recorder])

    async def __aenter__(self) -> Self:
        await self.bus.__aenter__()
        return self

    async def __aexit__(self, *arguments: object) -> None:
        await self.bus.__aexit__(*arguments)

    async def publish(self, event_type: str, *numbers: int) -> None:
        """Publish events of a type, whose data is `{"n": number}`."""
        await self.bus.publish_many([Event(type=event_type, data={"n": number}) for number in numbers])

    async def append(self, event_type: str, *bodies: bytes) -> list[bytes]:
        """Append entries as another program would."""
        results = await self.memory.streams.append([NewEntry(f"events:{event_type}", b"data", body) for body in bodies])
        return [str(result).encode() for result in results]

    async def deliver_to_the_dead(self, event_type: str, group: str, count: int = 100, consumer: str = "dead") -> int:
        """Let a worker that never says that it lives take entries; return how many."""
        stream = f"events:{event_type}"
        await self.memory.streams.create_groups([(stream, group, b"0-0")])
        reader = self.memory.open_reader()
        read = await reader.read_group(group, consumer, [stream], count=count, block=0)
        await reader.close()
        return sum(len(entries) for _, entries in read)

    async def pending(self, event_type: str, group: str) -> dict[str, int]:
        """Return delivery counts by entry id of what is pending."""
        found = await self.memory.streams.pending(f"events:{event_type}", group)
        return {entry.id.decode(): entry.delivery_count for entry in found}

    async def dead_letters(self, event_type: str, group: str) -> list[Any]:
        """Return the dead letters of a group."""
        return [letter for _, letter in await self.memory.streams.dead_letters(f"events:{event_type}", group)]


def body(n: int, event_type: str, **more: Any) -> bytes:
    """Return the envelope of an event as another program would write it."""
    return msgspec.json.encode(
        {"id": f"id-{n}", "type": event_type, "timestamp": "2024-01-01T00:00:00Z", "data": {"n": n}, **more}
    )
