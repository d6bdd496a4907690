"""A server that comes back without its latest entries gives out their ids again: an id alone is no identity."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from hyperbus import Delivery, Event, Reject, Retry, consumer
from hyperbus.signals import EntryDeadLettered
from tests.recorder import Recorder, eventually
from tests.servers import Server
from tests.symptoms import a_bus, command, pending, publish, settled
from tests.unit.runtime.running import Running, body, unique

pytestmark = pytest.mark.one_server

#: The id that two events get, far above those of the test's time.
TWICE = "9999999999999-1"


async def come_back_without_tail(server: Server) -> None:
    """End as a crash does, and start with what was saved before."""
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


class Losing:
    """A group whose stream was saved with one entry, all of it acked; then another entry comes, which will be lost."""

    def __init__(self, server: Server, bus: Any, kind: str) -> None:
        self.server = server
        self.bus = bus
        self.kind = kind

    async def append(self, n: int, workflow: str = "w") -> None:
        """Append an event with the id that is used twice."""
        data = body(n, self.kind, workflow_id=workflow)
        await command(self.server, "XADD", f"events:{self.kind}", TWICE, "data", data)


OUTCOMES = ["acked", "retried", "rejected", "waiting"]


@pytest.mark.parametrize(
    "options", [{}, {"order_by": "workflow_id"}, {"concurrency": 4}], ids=["one", "ordered", "four"]
)
@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_an_event_that_got_the_id_of_a_lost_one_is_handled(
    server: Server, outcome: str, options: dict[str, Any]
) -> None:
    """The worker took it for the one that it held, and its late ack acked it: published, and never handled."""
    kind, seen, begun, release = unique(), Counter[int](), asyncio.Event(), asyncio.Event()

    @consumer(group=kind, types=[kind], **options)
    async def handler(event: Event, delivery: Delivery) -> None:
        seen[event.data["n"]] += 1
        if event.data["n"] != 1:
            return
        begun.set()
        if outcome == "waiting" and delivery.tries == 1:
            raise Retry(after=1.0)
        await release.wait()
        if outcome == "retried" and delivery.tries == 1:
            raise Retry(after=0.1)
        if outcome == "rejected":
            raise Reject("no")

    with Server(server.binary) as own:
        async with a_bus(own, command_timeout=2.0) as bus, bus.running(handler):
            here = Losing(own, bus, kind)
            await publish(bus, kind, 0)
            await settled(bus, kind)
            await command(own, "SAVE")
            await here.append(1)
            await begun.wait()
            await asyncio.sleep(0.1)
            await come_back_without_tail(own)
            await here.append(2)
            await asyncio.sleep(0.6)  # time to be delivered to the worker that holds the lost one
            release.set()
            await eventually(lambda: seen[2] == 1, within=15)
            await settled(bus, kind)
            await asyncio.sleep(0.3)
            letters = await bus.transport.streams.dead_letters(f"events:{kind}", kind)
    assert letters == []
    assert seen[2] == 1
    assert seen[0] == 1


async def test_a_late_ack_leaves_an_event_of_the_same_id_that_another_worker_has(server: Server) -> None:
    """It is pending there until it is handled there, and survives that worker's death."""
    kind, at, begun, release = unique(), list[tuple[str, int]](), Counter[int](), asyncio.Event()
    second_release = asyncio.Event()

    def declared(name: str) -> Any:
        @consumer(group=kind, types=[kind])
        async def handler(event: Event) -> None:
            n = event.data["n"]
            begun[n] += 1
            if n == 1:
                await release.wait()
            if n == 2:
                await second_release.wait()
            at.append((name, n))

        return handler

    with Server(server.binary) as own:
        async with a_bus(own, command_timeout=2.0) as bus, a_bus(own, command_timeout=2.0) as other:
            here = Losing(own, bus, kind)
            async with bus.running(declared("first")):
                await publish(bus, kind, 0)
                await settled(bus, kind)
                await command(own, "SAVE")
                await here.append(1)
                await eventually(lambda: begun[1])
                async with other.running(declared("second")):
                    await come_back_without_tail(own)
                    await here.append(2)
                    await eventually(lambda: begun[2], within=15)
                    release.set()
                    await eventually(lambda: ("first", 1) in at)
                    await asyncio.sleep(0.5)
                    assert sum((await pending(bus, kind)).values()) == 1
                    second_release.set()
                    await settled(bus, kind)
    assert begun[2] == 1


async def test_what_the_server_still_has_after_a_restart_is_acked_as_ever(server: Server) -> None:
    """Nothing is done twice that need not be."""
    kind, seen, begun, release, recorder = unique(), Counter[int](), asyncio.Event(), asyncio.Event(), Recorder()

    @consumer(group=kind, types=[kind], concurrency=10)
    async def handler(event: Event) -> None:
        seen[event.data["n"]] += 1
        begun.set()
        await release.wait()
        if event.data["n"] == 3:
            raise Reject("no")

    with Server(server.binary, appendonly=True) as own:
        async with a_bus(own, recorder, command_timeout=2.0) as bus, bus.running(handler):
            await publish(bus, kind, *range(10))
            await begun.wait()
            await eventually(lambda: len(seen) == 10)
            await asyncio.to_thread(own.restart)
            release.set()
            await settled(bus, kind, within=15)
            await recorder.wait_for_one(EntryDeadLettered)
            await publish(bus, kind, 10)
            await settled(bus, kind, within=15)
    assert seen == Counter(range(11))


@pytest.mark.parametrize("outcome", ["acked", "retried"])
async def test_memory_that_is_taken_back_shows_the_same(outcome: str) -> None:
    """So that a program can be tested for it without a server."""
    kind, seen, begun, release = unique(), list[int](), asyncio.Event(), asyncio.Event()

    @consumer(group=kind, types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append(event.data["n"])
        begun.set()
        await release.wait()
        if outcome == "retried" and delivery.tries == 1 and event.data["n"] == 0:
            raise Retry(after=0.05)

    async with Running() as here, here.bus.running(handler):
        saved = here.memory.save()
        await here.publish(kind, 0)
        await begun.wait()
        (lost,) = await here.memory.streams.range(f"events:{kind}")
        here.memory.restore(saved)
        here.memory.append_as(f"events:{kind}", lost.id, (b"data", body(1, kind)))
        release.set()
        await eventually(lambda: 1 in seen)
        async with asyncio.timeout(10):
            while await here.pending(kind, kind):
                await asyncio.sleep(0.01)
    assert seen.count(1) == 1
