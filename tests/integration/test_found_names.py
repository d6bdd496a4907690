"""Names that other programs give are any bytes, and those are not always text."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from hyperbus import Event, consumer
from hyperbus.observability.metrics import BusMetrics
from hyperbus.signals import Claimed
from tests.recorder import Recorder, eventually
from tests.servers import Server
from tests.symptoms import MOST_COMMANDS, a_bus, command, commands_a_second, publish, settled
from tests.unit.runtime.running import unique

pytestmark = pytest.mark.one_server

NAMES = [b"\xff\xfe", "Zoë".encode("latin-1"), b"half \xe2\x82", b"a\x00b\n", b"\\xff"]


async def read_as(server: Server, kind: str, group: str | bytes, name: bytes, count: int) -> None:
    """Let a consumer of another program be handed entries."""
    words = ("XREADGROUP", "GROUP", group, name, "COUNT", count, "STREAMS", f"events:{kind}", ">")
    assert await command(server, *words)


@pytest.mark.parametrize("order", ["in order", "in no order"])
@pytest.mark.parametrize("name", NAMES)
async def test_what_a_consumer_with_an_odd_name_left_is_handled(server: Server, name: bytes, order: str) -> None:
    """An ordered group stood still, at half a core; in others the entries of that consumer were never handled."""
    kind, seen, recorder = unique(), list[int](), Recorder()
    options: dict[str, Any] = {"order_by": "workflow_id"} if order == "in order" else {}

    @consumer(group=kind, types=[kind], **options)
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    registry = CollectorRegistry()
    async with a_bus(server, recorder) as bus:
        await publish(bus, kind, *range(6), workflow_id="w")
        await command(server, "XGROUP", "CREATE", f"events:{kind}", kind, "0")
        await read_as(server, kind, kind, name, 4)
        async with bus.running(handler):
            await eventually(lambda: len(seen) == 6)
            await settled(bus, kind)
            assert sorted(seen) == list(range(6))
            assert order == "in no order" or seen == list(range(6))
    for told in recorder.of(Claimed):
        told.owner.encode()  # for people, and for logs: it can be written
    metrics = BusMetrics(registry)
    for signal in recorder.signals:
        metrics(signal)
    assert generate_latest(registry)
    found = await command(server, "XINFO", "CONSUMERS", f"events:{kind}", kind)
    assert name not in [bytes(each["name"]) for each in found], "it is removed, as any dead consumer is"


async def test_a_consumer_with_an_odd_name_costs_an_ordered_group_no_haste(server: Server) -> None:
    """While another one lives that is older, nothing is claimed, and nobody spins."""
    kind, seen = unique(), list[int]()

    @consumer(group=kind, types=[kind], order_by="workflow_id")
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    with Server(server.binary) as own:  # others have nothing to ask of it
        async with a_bus(own) as bus:
            await publish(bus, kind, *range(6), workflow_id="w")
            await command(own, "XGROUP", "CREATE", f"events:{kind}", kind, "0")
            await command(own, "SET", "hyperbus:events:worker:alive", "x", "PX", 60_000)
            await read_as(own, kind, kind, b"alive", 2)
            await read_as(own, kind, kind, b"\xff", 2)
            async with bus.running(handler):
                assert await commands_a_second(own) < MOST_COMMANDS
                assert seen == []
                await command(own, "DEL", "hyperbus:events:worker:alive")
                await eventually(lambda: seen == list(range(6)))


async def test_a_group_with_an_odd_name_is_seen_as_it_is(server: Server) -> None:
    """It holds its stream and has its pending entries, as far as anybody asks for it by the name that was told."""
    kind, group, seen = unique(), b"\xe9quipe", Counter[int]()

    @consumer(group="g", types=[kind])
    async def handler(event: Event) -> None:
        seen[event.data["n"]] += 1

    async with a_bus(server) as bus:
        stream = f"events:{kind}"
        await publish(bus, kind, *range(5))
        await command(server, "XGROUP", "CREATE", stream, group, "0")
        await read_as(server, kind, group, b"c\xff", 3)
        async with bus.running(handler):
            await settled(bus, kind, "g")
            await asyncio.sleep(0)
            (info,) = await bus.transport.streams.info([stream])
            assert info is not None
            (name,) = [each.group for each in info.groups if each.group != "g"]
            (summary,) = await bus.transport.streams.pending_summaries([(stream, name)])
            assert (summary.total, len(summary.consumers)) == (3, 1)
            (owner,) = summary.consumers
            found = await bus.transport.streams.pending(stream, name, consumer=owner)
            assert len(found) == 3
            assert set(await bus.transport.streams.floors(stream)) == {"g", name}
            assert await bus.transport.streams.consumers([(stream, name)]) == [[owner]]
