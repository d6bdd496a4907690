"""What the tests of peers' symptoms share: a bus with short times on a server, and looks at what became of events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from hyperbus import Bus, Delivery, Event, consumer
from hyperbus.settings import Settings
from hyperbus.signals import Acknowledged, Handled, Published, PublishErred
from tests.recorder import Recorder
from tests.servers import Server

#: What a process may ask of the server in a second while nothing happens; a hot loop asks thousands.
MOST_COMMANDS = 200


def a_bus(server: Server, recorder: Recorder | None = None, **settings: Any) -> Bus:
    """Return a bus that takes a worker for dead soon."""
    chosen = {"url": server.url, "heartbeat_ttl": 0.4, "drain_timeout": 2.0, **settings}
    return Bus(settings=Settings(**chosen), listeners=[] if recorder is None else [recorder])


def collects(seen: list[tuple[int, int]], kind: str, **options: Any) -> Any:
    """Return a consumer, of a group named like its type, that notes number and try of each event."""

    @consumer(**{"group": kind, "types": [kind], **options})
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))

    return handler


async def publish(bus: Bus, kind: str, *numbers: int, **named: Any) -> list[str]:
    """Publish an event for each number."""
    return await bus.publish_many([Event(type=kind, data={"n": n}, **named) for n in numbers])


async def deliver_to(bus: Bus, kind: str, owner: str, count: int) -> None:
    """Let a consumer that is no worker of ours, and has no heartbeat, be handed entries."""
    stream = f"{bus.prefix}:{kind}"
    await bus.transport.streams.create_groups([(stream, kind, b"0-0")])
    reader = bus.transport.open_reader()
    read = await reader.read_group(kind, owner, [stream], count=count, block=0)
    await reader.close()
    assert sum(len(entries) for _, entries in read) == count


async def pending(bus: Bus, kind: str, group: str = "") -> dict[str, int]:
    """Return how much is pending with each consumer."""
    (summary,) = await bus.transport.streams.pending_summaries([(f"{bus.prefix}:{kind}", group or kind)])
    return summary.consumers


async def settled(bus: Bus, kind: str, group: str = "", *, within: float = 10.0) -> None:
    """Wait until the group was handed everything and nothing is pending."""
    stream = f"{bus.prefix}:{kind}"
    async with asyncio.timeout(within):
        while True:
            (last,) = await bus.transport.streams.last_ids([stream])
            (info,) = await bus.transport.streams.info([stream])
            found = [each for each in info.groups if each.group == (group or kind)] if info else []
            if found and found[0].pending == 0 and found[0].last_delivered_id == last:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def two_workers(
    server: Server, kind: str, declared: Any, recorder: Recorder | None = None, **settings: Any
) -> AsyncGenerator[tuple[Bus, int]]:
    """Run two workers, and publish until both hold something: one of them sweeps. Yields how much that was."""
    count = 0
    async with (
        a_bus(server, recorder, **settings) as bus,
        a_bus(server, recorder, **settings) as other,
        bus.running(declared),
        other.running(declared),
    ):
        while len(await pending(bus, kind)) < 2:
            assert count < 20
            await publish(bus, kind, count)
            count += 1
        yield bus, count


async def length(bus: Bus, kind: str) -> int:
    """Return how many entries the stream has."""
    (info,) = await bus.transport.streams.info([f"{bus.prefix}:{kind}"])
    return 0 if info is None else info.length


async def command(server: Server, *words: Any) -> Any:
    """Send a command as another program would."""
    return await asyncio.to_thread(server.command, *words)


async def commands_a_second(server: Server, *, seconds: float = 1.0) -> float:
    """Return how many commands the server is asked, while a test looks on for a while."""

    async def asked() -> int:
        stats = await command(server, "INFO", "commandstats")
        return sum(line["calls"] + line.get("rejected_calls", 0) for line in stats.values())

    before, began = await asked(), time.monotonic()
    await asyncio.sleep(seconds)
    return (await asked() - before) / (time.monotonic() - began)


def told(recorder: Recorder) -> list[Any]:
    """Return what was announced that is worth a line in the log."""
    return [one for one in recorder.signals if not isinstance(one, (Published, PublishErred, Handled, Acknowledged))]
