"""Sweeps of several streams, and of more than a worker may hold; what a reader that lost the server says."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from hyperbus import BusUnavailable, Delivery, Event, Retry, consumer
from hyperbus.errors import ServerError
from hyperbus.signals import ConnectionChanged
from hyperbus.transport import Parked
from tests.faults import FaultyTransport
from tests.recorder import eventually
from tests.unit.runtime.running import Running, body, unique


@pytest.mark.parametrize("order", [{}, {"order_by": "workflow_id"}], ids=["in no order", "in order"])
async def test_what_a_dead_worker_left_is_taken_over_in_every_stream(order: dict[str, Any]) -> None:
    """In the first, and in those after it, of which one has nothing."""
    kinds, group, seen = [unique() for _ in range(4)], unique(), set[tuple[str, int]]()

    @consumer(group=group, types=kinds, **order)
    async def handler(event: Event) -> None:
        seen.add((event.type, event.data["n"]))

    left = [kind for kind in kinds if kind != kinds[1]]
    async with Running() as here:
        for kind in left:
            await here.publish(kind, 1, 2)
            await here.deliver_to_the_dead(kind, group)
        async with here.bus.running(handler):
            await eventually(lambda: seen == {(kind, n) for kind in left for n in (1, 2)})


async def test_an_ordered_backlog_that_is_larger_than_a_worker_may_hold_is_swept_without_haste() -> None:
    """It asks again at its next sweep, and not as fast as it can."""
    kind, seen, release = unique(), list[int](), asyncio.Event()

    @consumer(group=kind, types=[kind], order_by="workflow_id")
    async def handler(event: Event) -> None:
        if event.data["n"] >= 2:
            await release.wait()
        seen.append(event.data["n"])

    async with Running(FaultyTransport(), prefetch=5) as here:
        await here.append(kind, *(body(n, kind, workflow_id="w") for n in range(40)))
        await here.deliver_to_the_dead(kind, kind)
        async with here.bus.running(handler):
            # it holds three of its own, and has room for two: what comes first is its own
            await eventually(lambda: seen == [0, 1])
            began, before = time.monotonic(), len(here.transport.streams.called("pending"))
            await asyncio.sleep(1.0)
            asked = len(here.transport.streams.called("pending")) - before
            assert asked / (time.monotonic() - began) < 50
            release.set()
            await eventually(lambda: len(seen) == 40, within=30)
    assert seen == list(range(40))


@pytest.mark.parametrize("error", [BusUnavailable("the cable is out"), ServerError("MISCONF the disk is full")])
@pytest.mark.parametrize("audience", ["group", "every_process"])
async def test_a_reader_that_lost_the_server_says_why(error: Exception, audience: Any) -> None:
    """It said only that it had."""
    kind, failing = unique(), True

    async def fails(call: Any, *arguments: Any, **options: Any) -> Any:
        if failing:
            raise error
        return await call(*arguments, **options)

    @consumer(group=kind, types=[kind], audience=audience)
    async def handler(event: Event) -> None: ...

    async with Running() as here:
        here.transport.reader_overrides |= {"read_group": fails, "read": fails}
        async with here.bus.running(handler):

            def told() -> list[ConnectionChanged]:
                return [one for one in here.recorder.of(ConnectionChanged) if one.kind == "reader"]

            await eventually(told)
            assert (told()[0].connected, told()[0].error) == (False, str(error))
            failing = False
            await eventually(lambda: len(told()) == 2)
            assert (told()[1].connected, told()[1].error) == (True, "")


async def test_a_parked_entry_that_is_to_wait_keeps_its_wait_though_its_worker_leaves() -> None:
    """Its worker could not tell before it left: what it tells then is the wait, and not that the entry is free."""
    kind, begun, release = unique(), asyncio.Event(), asyncio.Event()

    @consumer(group=kind, types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        begun.set()
        await release.wait()
        raise Retry(after=600)

    async def away_until_the_end(reschedule: Any, *arguments: Any) -> Any:
        task = asyncio.current_task()
        if task is not None and task.get_name().endswith("finisher"):
            raise BusUnavailable("away")
        return await reschedule(*arguments)

    async with Running(FaultyTransport()) as here:
        stream = f"events:{kind}"
        await here.append(kind, body(0, kind))
        await here.deliver_to_the_dead(kind, kind)
        (entry,) = await here.memory.streams.range(stream)
        now = time.time()
        assert await here.memory.streams.park(stream, kind, "dead", [Parked(entry.id, entry.fields, 1, now, now)]) == [
            True
        ]
        here.transport.streams.overrides["reschedule_parked"] = away_until_the_end
        async with here.bus.running(handler):
            await begun.wait()
            asyncio.get_running_loop().call_later(0.05, release.set)
        (due,) = await here.memory.streams.next_parked([(stream, kind)])
        assert due is not None
        assert due - time.time() > 500
        *_, told = here.transport.streams.called("reschedule_parked")[-1]
        assert len(told) == 1, "and nothing else is told of it"
