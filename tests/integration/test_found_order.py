"""Groups that keep an order begin at once, and go on with other keys while one is slow."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbus import Event, consumer
from hyperbus.signals import Claimed, WorkerChanged
from tests.faults import FaultyTransport
from tests.recorder import Recorder, eventually
from tests.servers import Server
from tests.symptoms import a_bus, command, publish, settled
from tests.unit.runtime.running import Running, unique

pytestmark = pytest.mark.one_server


def looks(here: Running) -> int:
    """Return how often a worker has looked its group over."""
    return len(here.transport.streams.called("pending_summaries"))


@pytest.mark.parametrize("streams", ["one", "two", "found"])
async def test_the_first_worker_of_an_ordered_group_begins_at_its_first_look(streams: str) -> None:
    """It waited for 1.7 to 2.4 s, which is five looks, though nobody could be reading; on memory, too."""
    word, seen, looked = unique(), list[int](), list[int]()
    kinds = [f"{word}.a"] if streams == "one" else [f"{word}.a", f"{word}.b"]
    options: dict[str, Any] = {"types": [f"{word}.*"] if streams == "found" else kinds}

    @consumer(group=word, order_by="workflow_id", **options)
    async def handler(event: Event) -> None:
        looked.append(looks(here))
        seen.append(event.data["n"])

    async with Running(FaultyTransport()) as here:
        await here.publish(kinds[-1], 0)
        async with here.bus.running(handler):
            await eventually(lambda: seen == [0])
            assert looked[0] <= 3
        before = looks(here)
        await here.publish(kinds[0], 1)
        async with here.bus.running(handler):  # and when it is started again
            await eventually(lambda: seen == [0, 1])
            assert looked[1] - before <= 3


async def test_a_second_worker_of_an_ordered_group_does_not_read_beside_the_first() -> None:
    """What begins at once is who is alone: whoever comes later stands by."""
    kind, running, most = unique(), list[int](), list[int]()

    @consumer(group=kind, types=[kind], order_by="workflow_id")
    async def handler(event: Event) -> None:
        running.append(event.data["n"])
        most.append(len(running))
        await asyncio.sleep(0.01)
        running.remove(event.data["n"])

    transport = FaultyTransport()
    async with (
        Running(transport) as here,
        Running(FaultyTransport(transport.inner.separate())) as there,
        here.bus.running(handler),
        there.bus.running(handler),
    ):
        for n in range(0, 60, 3):
            await here.bus.publish_many([Event(type=kind, data={"n": m}, workflow_id="w") for m in range(n, n + 3)])
            await asyncio.sleep(0.02)
        await eventually(lambda: len(most) == 60)
    assert most == [1] * 60


@pytest.mark.parametrize("standing_by", [1, 2])
async def test_other_keys_go_on_when_the_right_to_read_changes_hands_during_a_long_handler(
    server: Server, standing_by: int
) -> None:
    """They waited for the end of the handler, 25 s, as whoever had the right could not use it."""
    kind, seen, release, begun = unique(), list[int](), asyncio.Event(), asyncio.Event()

    @consumer(group=kind, types=[kind], order_by="workflow_id", concurrency=8)
    async def handler(event: Event) -> None:
        if event.data["n"] == 0:
            begun.set()
            await release.wait()
        seen.append(event.data["n"])

    others = [Recorder() for _ in range(standing_by)]
    recorder = Recorder()
    async with a_bus(server, recorder) as bus, bus.running(handler):
        await publish(bus, kind, 0, workflow_id="slow")
        await begun.wait()
        buses = [a_bus(server, other) for other in others]
        async with asyncio.TaskGroup() as tasks:
            ended = asyncio.Event()

            async def stand_by(other: Any) -> None:
                async with other, other.running(handler):
                    await ended.wait()

            for other in buses:
                tasks.create_task(stand_by(other))
            for other in others:
                await other.wait_for_one(WorkerChanged)
            # as after the first one's event loop was blocked for longer than the right lasts
            name = others[0].of(WorkerChanged)[0].consumer
            await command(server, "SET", f"hyperbus:events:lease:sweep:{kind}", name, "PX", 1000)
            await asyncio.sleep(0.6)
            for n in range(1, 6):
                await publish(bus, kind, n, workflow_id=f"w{n}")
            await publish(bus, kind, 6, workflow_id="slow")
            await eventually(lambda: sorted(seen) == [1, 2, 3, 4, 5])
            release.set()
            await eventually(lambda: sorted(seen) == [0, 1, 2, 3, 4, 5, 6])
            assert seen.index(0) < seen.index(6)
            await settled(bus, kind)
            ended.set()
    assert [claimed for one in (recorder, *others) for claimed in one.of(Claimed)] == []
