"""An entry is of the type that its stream holds; one that names another one is undecodable."""

from __future__ import annotations

from typing import Any

import pytest

from hyperbus import Bus, Event, EventData, consumer
from hyperbus.settings import Settings
from hyperbus.transport import NewEntry
from tests.faults import FaultyTransport
from tests.recorder import eventually
from tests.unit.runtime.running import Running, body, unique
from tests.unit.runtime.shapes import dead_letters


class Paid(EventData, type="found.paid"):
    n: int


def collects(seen: list[Any], kind: str, shape: str, group: str) -> Any:
    if shape == "batch":

        @consumer(group=group, types=[kind])
        async def batch(events: list[Event]) -> None:
            seen.extend(event.data["n"] for event in events)

        return batch

    options: dict[str, Any] = {"order_by": "source_agent"} if shape == "in order" else {}

    @consumer(group=group, types=["*" if shape == "glob" else kind], **options)
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    return handler


@pytest.mark.parametrize("shape", ["one by one", "batch", "glob", "in order"])
async def test_an_entry_that_names_another_type_is_undecodable(shape: str) -> None:
    """Who may write to one stream could pass it off as an event of another."""
    kind, group, seen = unique("low."), unique(), list[int]()
    async with Running() as here:
        wrong = [
            body(n, name) for n, name in enumerate(["found.paid", "", kind.upper(), f"events:{kind}", f"{kind}.x"])
        ]
        await here.append(kind, *wrong, body(100, kind))
        async with here.bus.running(collects(seen, kind, shape, group)):
            letters = await dead_letters(here, kind, group, len(wrong))
            await eventually(lambda: seen == [100])
        assert {letter.reason for letter in letters} == {"undecodable"}
        assert sorted(letter.fields[1] for letter in letters) == sorted(wrong)
        assert f"lies in a stream of '{kind}'" in letters[0].message


async def test_a_reader_without_a_group_does_not_see_it_either() -> None:
    """`bus.read` leaves out what is no event of the stream."""
    kind, seen = unique("low."), list[int]()
    async with Running() as here:
        await here.append(kind, body(1, "found.paid"), body(2, kind))
        async for event in here.bus.read(kind):
            seen.append(event.data["n"])
            break
    assert seen == [2]


@pytest.mark.parametrize("prefix", ["other", "events.more", "e-1"])
async def test_what_a_stream_holds_goes_by_its_prefix(prefix: str) -> None:
    """The type is what follows it."""
    kind, group, seen = unique("low."), unique(), list[int]()
    transport = FaultyTransport()
    async with Bus(transport=transport, prefix=prefix, settings=Settings(drain_timeout=1)) as bus:
        stream = f"{prefix}:{kind}"
        entries = [NewEntry(stream, b"data", body(n, name)) for n, name in enumerate([kind, f"more:{kind}", kind])]
        await transport.inner.streams.append(entries)
        async with bus.running(collects(seen, kind, "glob", group)):
            await eventually(lambda: seen == [0, 2])
            await bus.publish(Event(type=kind, data={"n": 3}))
            await eventually(lambda: seen == [0, 2, 3])
