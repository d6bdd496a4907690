"""What is pending with a worker that does not know of it: in every stream, and while other entries are being acked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbus import BusUnavailable, Event, consumer
from hyperbus.signals import Acknowledged
from tests.recorder import eventually
from tests.unit.runtime.running import Running, read_ahead, unique


@pytest.mark.parametrize("odd", [0, 1, 2])
async def test_what_a_broken_read_brought_is_found_in_whichever_stream_it_is(odd: int) -> None:
    """One of several streams has it; those before and after it have nothing."""
    kinds, group, seen, broken = [unique() for _ in range(3)], unique(), list[int](), list[str]()
    here = Running()

    @consumer(group=group, types=kinds)
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async def breaks(read: Any, *arguments: Any, **options: Any) -> Any:
        found = await read(*arguments, **options)
        if found and not broken:
            broken.append(found[0][0])
            raise BusUnavailable("the answer was lost")
        return found

    here.transport.reader_overrides["read_group"] = breaks
    async with here, here.bus.running(handler):
        await here.publish(kinds[odd], 1)
        await eventually(lambda: seen == [1])
        await eventually(lambda: here.recorder.of(Acknowledged))
        assert await here.pending(kinds[odd], group) == {}
    assert broken == [f"events:{kinds[odd]}"]


async def test_what_is_acked_while_it_is_read_again_is_not_handled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server told of it before its ack: that answer is old when it comes."""
    read_ahead(monkeypatch)
    kind, group, seen, broken = unique(), unique(), list[int](), list[Any]()
    release = asyncio.Event()
    here = Running()

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])
        if event.data["n"] == 1:
            await release.wait()

    async def breaks(read: Any, *arguments: Any, **options: Any) -> Any:
        found = await read(*arguments, **options)
        if found and seen and not broken:
            broken.append(found)
            raise BusUnavailable("the answer was lost")
        return found

    async def slowly(read: Any, *arguments: Any, **options: Any) -> Any:
        found = await read(*arguments, **options)
        if len(found) == 2:
            release.set()
            await here.recorder.wait_for_one(Acknowledged)
        return found

    here.transport.reader_overrides |= {"read_group": breaks, "read_pending": slowly}
    async with here, here.bus.running(handler):
        await here.publish(kind, 1)
        await eventually(lambda: seen == [1])
        await here.publish(kind, 2)
        await eventually(lambda: 2 in seen)
        await here.publish(kind, 3)
        await eventually(lambda: 3 in seen)
    assert seen == [1, 2, 3]
