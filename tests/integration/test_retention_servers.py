"""Retention on real servers: memory stays bounded while a group is slow, and nothing is cut unread."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

from hyperbus import Bus, Event, EventData, consumer
from hyperbus.event.retention import Keep
from hyperbus.settings import Settings
from hyperbus.signals import Acknowledged, CutUnread, GroupAbandoned, HardCapNear, Signal, Trimmed
from hyperbus.transport import record_names
from tests.recorder import Recorder
from tests.servers import Server, server_binaries
from tests.unit.runtime.running import unique

pytestmark = pytest.mark.one_server

#: How many events the long test sends: HYPERBUS_TEST_RETENTION_EVENTS=10000000 for the full one.
EVENTS = int(os.environ.get("HYPERBUS_TEST_RETENTION_EVENTS", "500000"))
#: How far the slow group stays behind while there is something to publish.
BEHIND = min(500_000, EVENTS // 2)
MB = 1024 * 1024
PAD = "x" * 150


class Measured(EventData, type="retention.measured"):
    n: int
    pad: str = PAD


class Counting:
    """A listener that counts what the long test asks for; keeping every signal would take memory of its own."""

    def __init__(self) -> None:
        self.acked = {"fast": 0, "slow": 0}
        self.trimmed = 0
        self.unread: list[Signal] = []

    def __call__(self, signal: Signal) -> None:
        if isinstance(signal, Acknowledged):
            self.acked[signal.group] += signal.count
        elif isinstance(signal, Trimmed):
            self.trimmed += signal.count
        elif isinstance(signal, (CutUnread, GroupAbandoned)):
            self.unread.append(signal)


class Slow:
    """Publishes as fast as the fast group reads, lets the slow one fall behind, and samples memory each second."""

    def __init__(self, server: Server, bus: Bus, heard: Counting) -> None:
        self.server, self.bus, self.heard = server, bus, heard
        self.seen = bytearray(EVENTS)
        self.slow = self.fast = self.published = 0
        self.entry_bytes = 0.0
        self.samples: list[tuple[float, int, float, float]] = []

    def consumers(self) -> list[Any]:
        @consumer(group="fast", batch=500)
        async def read_fast(events: list[Event[Measured]]) -> None:
            self.fast += len(events)

        @consumer(group="slow", batch=500)
        async def read_slow(events: list[Event[Measured]]) -> None:
            while self.published < EVENTS and self.published - self.slow < BEHIND:
                await asyncio.sleep(0.01)
            for event in events:
                self.seen[event.data.n] = 1
            self.slow += len(events)

        return [read_fast, read_slow]

    async def publish(self) -> None:
        while self.published < EVENTS:
            while self.published - self.heard.acked["fast"] > 20_000:
                await asyncio.sleep(0.005)
            more = min(500, EVENTS - self.published)
            await self.bus.publish_many([Measured(n=self.published + n) for n in range(more)])
            self.published += more

    async def sample(self, baseline: int) -> None:
        (first,) = await self.bus.transport.streams.range("events:retention.measured", count=1)
        self.entry_bytes = sum(map(len, first.fields))
        began = time.monotonic()
        while True:
            before = self.unacked
            used = (await asyncio.to_thread(self.server.command, "INFO", "memory"))["used_memory"] - baseline
            allowed = 1.3 * max(before, self.unacked) + 64 * MB
            self.samples.append((time.monotonic() - began, used, max(before, self.unacked), allowed))
            await asyncio.sleep(1)

    @property
    def unacked(self) -> float:
        """Bytes of what the slow group has yet to ack."""
        return (self.published - self.heard.acked["slow"]) * self.entry_bytes

    def report(self) -> str:
        """Say what was measured."""
        seconds = self.samples[-1][0]
        _, used, unacked, allowed = max(self.samples, key=lambda sample: sample[1] / sample[3])
        return (
            f"{self.published} events of {self.entry_bytes:.0f} bytes in {seconds:.0f} s, {self.heard.trimmed} trimmed; "
            f"nearest to the bound: {used / MB:.0f} MB used, {unacked / MB:.0f} MB unacked, {allowed / MB:.0f} MB allowed; "
            f"most used: {max(sample[1] for sample in self.samples) / MB:.0f} MB"
        )


@pytest.mark.timeout(60 + EVENTS // 5_000)
async def test_memory_follows_what_the_slowest_group_has_yet_to_ack() -> None:
    """With default retention: at most 1.3 times those bytes and 64 MB, each second; and nothing is cut unread."""
    name, binary = list(server_binaries().items())[-1]
    heard = Counting()
    with Server(binary) as server:
        baseline = server.command("INFO", "memory")["used_memory"]
        async with Bus(settings=Settings(url=server.url), listeners=[heard]) as bus:
            slow = Slow(server, bus, heard)
            async with bus.running(*slow.consumers()):
                await bus.publish(Measured(n=0))
                sampling = asyncio.create_task(slow.sample(baseline))
                async with asyncio.timeout(50 + EVENTS // 5_000):
                    await slow.publish()
                    while heard.acked["slow"] < EVENTS + 1:
                        await asyncio.sleep(0.05)
                sampling.cancel()
                await asyncio.wait((sampling,))
    print(f"\n{name}: {slow.report()}")
    over = [sample for sample in slow.samples if sample[1] > sample[3]]
    assert over == [], slow.report()
    assert slow.seen.count(1) == EVENTS
    assert heard.unread == []
    assert heard.trimmed > EVENTS // 4


async def length(bus: Bus, kind: str) -> int:
    (info,) = await bus.transport.streams.info([f"{bus.prefix}:{kind}"])
    assert info is not None
    return info.length


async def reach(bus: Bus, kind: str, least: int, most: int) -> None:
    """Wait until a stream's length lies between two numbers."""
    async with asyncio.timeout(10):
        while not least <= await length(bus, kind) <= most:
            await asyncio.sleep(0.05)


async def test_a_policy_of_a_class_is_kept_on_a_server(server: Server) -> None:
    """What is acked goes to the number; what is not, stays; a hard cap cuts, warns and counts."""
    soft, hard, recorder, stop = unique("soft"), unique("hard"), Recorder(), asyncio.Event()
    made: list[Any] = [
        type(EventData)("Soft", (EventData,), {"__module__": soft}, type=soft, retention=Keep(entries=1000)),
        type(EventData)("Hard", (EventData,), {"__module__": hard}, type=hard, retention=Keep(entries=2000, hard=True)),
    ]

    @consumer(group="g", types=[soft], batch=500)
    async def works(events: list[Event]) -> None:
        pass

    @consumer(group="stuck", types=[hard])
    async def stuck(event: Event) -> None:
        await stop.wait()

    settings = Settings(url=server.url, prefix=unique("p"), drain_timeout=0.1)
    async with Bus(settings=settings, listeners=[recorder]) as bus, bus.running(works, stuck):
        for kind in (soft, hard):
            await bus.publish_many([Event(type=kind, data={}) for _ in range(6000)])
        await reach(bus, soft, 1000, 1200)
        await reach(bus, hard, 1000, 2000)
        cut = 6000 - await length(bus, hard)
        told = [signal for signal in recorder.signals if isinstance(signal, (HardCapNear, CutUnread))]
        assert isinstance(told[0], HardCapNear)
        assert sum(signal.count for signal in recorder.of(CutUnread)) == cut
        stop.set()
    assert made


async def test_a_group_that_a_server_lost_holds_the_stream(server: Server) -> None:
    """A stream without its group is not taken for one that nobody reads."""
    kind, prefix, recorder, release = unique(), unique("p"), Recorder(), asyncio.Event()
    settings = Settings(url=server.url, prefix=prefix, retain_age=0.001, drain_timeout=0.1)

    @consumer(group="served", types=[kind])
    async def served(event: Event) -> None:
        await release.wait()

    async with Bus(settings=settings, listeners=[recorder]) as bus:
        async with bus.running(served):
            await bus.publish_many([Event(type=kind, data={}) for _ in range(100)])
            records, name = bus.transport.records, record_names.served(f"{prefix}:{kind}", "served")
            async with asyncio.timeout(10):
                while await records.get([name]) != [b"served"]:
                    await asyncio.sleep(0.05)
        # Its worker is gone. The server loses the group; another one, which acks all, goes on.
        await asyncio.to_thread(server.command, "XGROUP", "DESTROY", f"{prefix}:{kind}", "served")

        @consumer(group="other", types=[kind], batch=500)
        async def other(events: list[Event]) -> None:
            pass

        async with bus.running(other):
            await recorder.wait_for(
                lambda _: sum(s.count for s in recorder.of(Acknowledged) if s.group == "other") == 100
            )
            rounds = int(server.command("INFO", "commandstats")["cmdstat_time"]["calls"])
            async with asyncio.timeout(15):  # three rounds of the one who would cut
                while int(server.command("INFO", "commandstats")["cmdstat_time"]["calls"]) < rounds + 3:
                    await asyncio.sleep(0.1)
            assert await length(bus, kind) == 100
            await bus.transport.streams.create_groups([(f"{prefix}:{kind}", "served", b"0-0")])
            assert await length(bus, kind) == 100
            await asyncio.to_thread(server.command, "XGROUP", "SETID", f"{prefix}:{kind}", "served", "$")
            await reach(bus, kind, 0, 0)
    release.set()
