"""`once=True` while the connection is cut again and again: every event is stored, and stored once, on a real server.

HYPERBUS_TEST_CUTS says how often it is cut; 100 times by default, as 1,000 take a minute on each server.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from hyperbus import Bus, Event, PublishUncertain
from hyperbus.settings import Settings
from hyperbus.signals import PublishErred
from tests.chaos.proxy import Proxy
from tests.recorder import Recorder
from tests.servers import Server
from tests.unit.runtime.running import unique

CUTS = int(os.environ.get("HYPERBUS_TEST_CUTS", "100"))
#: How long one cut may take to show.
PATIENCE = 10.0


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(server.port) as proxy:
        yield proxy


class Writers:
    """Tasks that publish into streams of their own, each event numbered, until they are told to stop."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.stopping = False
        #: By type: the ids and entry ids of its events, in order.
        self.published: dict[str, list[tuple[str, str]]] = {}

    @property
    def count(self) -> int:
        return sum(map(len, self.published.values()))

    async def one_by_one(self, kind: str) -> None:
        done = self.published[kind] = []
        while not self.stopping:
            event: Event = Event(type=kind, data={"n": len(done)})
            done.append((event.id, await self.bus.publish(event, once=True, timeout=60)))

    async def many(self, kind: str) -> None:
        done = self.published[kind] = []
        while not self.stopping:
            events: list[Any] = [Event(type=kind, data={"n": len(done) + n}) for n in range(30)]
            ids = await self.bus.publish_many(events, once=True, timeout=60)
            done += [(event.id, entry_id) for event, entry_id in zip(events, ids, strict=True)]


def stored(server: Server, stream: str) -> list[tuple[str, str, int]]:
    """Return (event id, entry id, number) of every entry, in order."""
    found = []
    last = "-"
    while page := server.command("XRANGE", stream, last, "+", "COUNT", 10_000):
        for entry_id, fields in page:
            event = msgspec.json.decode(fields[b"data"])
            found.append((event["id"], entry_id.decode(), event["data"]["n"]))
        last = f"({found[-1][1]}"
    return found


async def test_however_often_the_connection_is_cut_each_event_is_stored_once(server: Server, proxy: Proxy) -> None:
    """Most cuts come after the server did what it was asked and before it could say so. Order is kept too."""
    recorder, chance, prefix = Recorder(), random.Random(7), unique("p")
    silences: list[PublishErred] = []

    def hears_silence(signal: Any) -> None:
        if isinstance(signal, PublishErred) and signal.error == "PublishUncertain":
            silences.append(signal)

    settings = Settings(url=f"redis://127.0.0.1:{proxy.port}/0", prefix=prefix)
    async with Bus(settings=settings, listeners=[hears_silence, recorder]) as bus, asyncio.TaskGroup() as tasks:
        writers = Writers(bus)
        for n in range(4):
            tasks.create_task(writers.one_by_one(f"single_{n}"))
        tasks.create_task(writers.many("many"))
        for _ in range(CUTS):
            await recorder.wait_for(progress(lambda: writers.count, by=20), within=PATIENCE)
            if chance.random() < 0.2:
                proxy.cut()
                continue
            shows = progress(lambda: len(silences), by=1)
            # Again with each signal: just now there may have been no connection.
            await recorder.wait_for(
                lambda signals, shows=shows: shows(signals) or proxy.drop_replies(), within=PATIENCE
            )
        writers.stopping = True
    assert len(silences) >= CUTS / 2
    for kind, events in writers.published.items():
        found = await asyncio.to_thread(stored, server, f"{prefix}:{kind}")
        assert server.command("XLEN", f"{prefix}:{kind}") == len(events)
        assert [(event_id, entry_id) for event_id, entry_id, _ in found] == events
        assert [n for _, _, n in found] == list(range(len(events)))


def progress(count: Callable[[], int], *, by: int) -> Callable[[list[Any]], bool]:
    """Return what tells whether a count has grown since now."""
    before = count()
    return lambda _: count() >= before + by


async def test_without_once_a_cut_leaves_an_event_uncertain(server: Server, proxy: Proxy) -> None:
    """What the test above would be worth nothing without: these cuts do hide the answer of what is stored."""
    prefix = unique("p")
    async with Bus(settings=Settings(url=f"redis://127.0.0.1:{proxy.port}/0", prefix=prefix)) as bus:
        event: Event = Event(type="cut", data={})
        await bus.publish(event)
        proxy.drop_replies()
        with pytest.raises(PublishUncertain):
            await bus.publish(event)
        await bus.publish(event)
    assert server.command("XLEN", f"{prefix}:cut") == 3


async def test_a_server_that_forgot_its_scripts_is_told_them_again(server: Server) -> None:
    """As after a restart, or on the server that took over."""
    prefix = unique("p")
    async with Bus(settings=Settings(url=server.url, prefix=prefix)) as bus:
        event: Event = Event(type="told", data={})
        first = await bus.publish(event, once=True)
        server.command("SCRIPT", "FLUSH")
        assert await bus.publish(event, once=True) == first
        assert await bus.publish_many([event] * 3, once=True) == [first] * 3
    assert server.command("XLEN", f"{prefix}:told") == 1


async def test_a_restart_in_the_middle_stores_each_event_once(server: Server) -> None:
    """A server that keeps an append-only file is killed and comes back, well within the timeout."""
    prefix = unique("p")
    with Server(server.binary, appendonly=True, arguments=["--appendfsync", "always"]) as own:
        async with (
            Bus(settings=Settings(url=own.url, prefix=prefix)) as bus,
            asyncio.TaskGroup() as tasks,
        ):
            writers = Writers(bus)
            for n in range(2):
                tasks.create_task(writers.one_by_one(f"single_{n}"))
            for _ in range(3):
                before = writers.count
                async with asyncio.timeout(PATIENCE):
                    while writers.count < before + 50:
                        await asyncio.sleep(0.005)
                await asyncio.to_thread(own.kill)
                await asyncio.to_thread(own.start)
            writers.stopping = True
        for kind, events in writers.published.items():
            found = await asyncio.to_thread(stored, own, f"{prefix}:{kind}")
            assert [(event_id, entry_id) for event_id, entry_id, _ in found] == events
