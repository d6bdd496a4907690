"""Workers that leave give away what they did not begin, at once and without raising tries: on real servers."""

from __future__ import annotations

import asyncio
import signal
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hyperbus import Bus, Delivery, Event, consumer
from hyperbus.settings import Settings
from hyperbus.signals import Claimed, Recovered
from tests.commands import environment
from tests.recorder import Recorder, eventually
from tests.servers import Server
from tests.unit.runtime.running import read_ahead, unique

#: How soon a live worker's handler has what was handed over, where a slot is free.
AT_ONCE = 0.1
EVENTS = 300
#: Times that this is measured: one of them may meet a moment when the machine was busy with something else.
ROUNDS = 3


@pytest.fixture(autouse=True)
def _read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers hold much that they did not begin, as those do whose handlers were quick so far."""
    read_ahead(monkeypatch)


class Hands:
    """A consumer whose handlers note when they begin, and wait until they are let go."""

    def __init__(self, kind: str, group: str, *, batch: int | None = None, concurrency: int = 1) -> None:
        self.seen: list[tuple[int, int, float]] = []
        self.release = asyncio.Event()
        if batch is None:

            @consumer(group=group, types=[kind], concurrency=concurrency)
            async def handler(event: Event, delivery: Delivery) -> None:
                self.seen.append((event.data["n"], delivery.tries, time.monotonic()))
                await self.release.wait()

        else:

            @consumer(group=group, types=[kind], batch=batch, concurrency=concurrency)
            async def handler(events: list[Event], deliveries: list[Delivery]) -> None:
                now = time.monotonic()
                self.seen += [
                    (event.data["n"], delivery.tries, now) for event, delivery in zip(events, deliveries, strict=True)
                ]
                await self.release.wait()

        self.declared: Any = handler


@asynccontextmanager
async def two_buses(server: Server, recorder: Recorder) -> AsyncGenerator[tuple[Bus, Bus]]:
    """The one that leaves, and the one that stays and is listened to."""
    settings = Settings(url=server.url)
    async with Bus(settings=settings) as leaving, Bus(settings=settings, listeners=[recorder]) as staying:
        yield leaving, staying


async def pending(bus: Bus, kind: str) -> int:
    return (await bus.transport.streams.pending_summaries([(f"events:{kind}", "g")]))[0].total


async def hand_over(server: Server, batch: int | None) -> float:
    """Let a worker leave beside another one; return after how many seconds the last event began that it gave away."""
    kind, recorder = unique(), Recorder()
    first = Hands(kind, "g", batch=batch)
    second = Hands(kind, "g", batch=batch, concurrency=EVENTS)
    async with two_buses(server, recorder) as (leaving, staying):
        running = leaving.running(first.declared)
        await running.__aenter__()
        await leaving.publish_many([Event(type=kind, data={"n": n}) for n in range(EVENTS)])
        await eventually(lambda: first.seen)
        begun = {n for n, _, _ in first.seen}
        async with asyncio.timeout(10):
            while await pending(leaving, kind) < EVENTS:
                await asyncio.sleep(0.01)
        async with staying.running(second.declared):
            stopped = time.monotonic()
            stopping = asyncio.create_task(running.__aexit__(None, None, None))
            await eventually(lambda: len(second.seen) >= EVENTS - len(begun))
            assert not stopping.done(), "it drains what it had begun"
            first.release.set()
            await stopping
            second.release.set()
            async with asyncio.timeout(10):
                while await pending(staying, kind):
                    await asyncio.sleep(0.01)
    assert sorted((n, tries) for n, tries, _ in second.seen) == [(n, 1) for n in range(EVENTS) if n not in begun]
    assert {n for n, _, _ in first.seen} == begun
    assert sum(signal.count for signal in recorder.of(Recovered)) == EVENTS - len(begun)
    assert recorder.of(Claimed) == []
    return max(began for _, _, began in second.seen) - stopped


@pytest.mark.alone
@pytest.mark.second_try("how soon another process begins is up to the machine")
@pytest.mark.parametrize("batch", [None, 50], ids=["single", "batch"])
async def test_a_live_handler_has_what_was_not_begun_at_once(server: Server, batch: int | None) -> None:
    """All of it, counted as never tried, while the one that leaves still works on what it had begun."""
    late = [await hand_over(server, batch) for _ in range(ROUNDS)]
    print(f"the last of {EVENTS} began after {', '.join(f'{seconds * 1000:.0f}' for seconds in late)} ms")
    assert statistics.median(late) <= AT_ONCE


LEAVES = """
import asyncio, sys
from hyperbus import Bus, Event, consumer
from hyperbus.runtime.in_flight.pace import Pace
from hyperbus.settings import Settings

Pace.within = lambda self, seconds: 100

@consumer(group="g", types=[sys.argv[2]])
async def handler(event: Event) -> None:
    print(event.data["n"], flush=True)
    await asyncio.sleep(1.0)

async def main():
    async with Bus(settings=Settings(url=sys.argv[1])) as bus:
        await bus.run(handler)

asyncio.run(main())
"""


@pytest.mark.alone
@pytest.mark.second_try("how soon another process begins is up to the machine")
async def test_a_program_told_to_stop_hands_over_at_once(server: Server, tmp_path: Path) -> None:
    """SIGTERM does what `stop` does."""
    kind, recorder = unique(), Recorder()
    hands = Hands(kind, "g", concurrency=20)
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LEAVES, server.url, kind, stdout=asyncio.subprocess.PIPE, env=environment()
    )
    assert program.stdout is not None
    try:
        async with asyncio.timeout(30), Bus(settings=Settings(url=server.url), listeners=[recorder]) as bus:
            await bus.publish_many([Event(type=kind, data={"n": n}) for n in range(20)])
            assert await program.stdout.readline() == b"0\n"
            async with asyncio.timeout(10):
                while await pending(bus, kind) < 20:
                    await asyncio.sleep(0.01)
            async with bus.running(hands.declared):
                hands.release.set()
                stopped = time.monotonic()
                program.send_signal(signal.SIGTERM)
                await eventually(lambda: len(hands.seen) == 19)
                assert max(began for _, _, began in hands.seen) - stopped <= AT_ONCE
                assert await program.wait() == 0
                async with asyncio.timeout(10):
                    while await pending(bus, kind):
                        await asyncio.sleep(0.01)
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    assert sorted((n, tries) for n, tries, _ in hands.seen) == [(n, 1) for n in range(1, 20)]


async def test_it_is_shared_among_those_that_live(server: Server) -> None:
    """Each of them gets a part, so that no one is flooded."""
    kind, recorder = unique(), Recorder()
    first, others = Hands(kind, "g"), [Hands(kind, "g", concurrency=100) for _ in range(3)]
    async with two_buses(server, recorder) as (leaving, staying):
        running = leaving.running(first.declared)
        await running.__aenter__()
        await leaving.publish_many([Event(type=kind, data={"n": n}) for n in range(91)])
        await eventually(lambda: first.seen)
        async with asyncio.timeout(10):
            while await pending(leaving, kind) < 91:
                await asyncio.sleep(0.01)
        async with Bus(settings=Settings(url=server.url)) as a, Bus(settings=Settings(url=server.url)) as b:
            contexts = [bus.running(o.declared) for bus, o in zip((staying, a, b), others, strict=True)]
            async with contexts[0], contexts[1], contexts[2]:
                before = len(first.seen)
                stopping = asyncio.create_task(running.__aexit__(None, None, None))
                await eventually(lambda: sum(len(o.seen) for o in others) == 91 - before)
                first.release.set()
                await stopping
                for hands in others:
                    hands.release.set()
    assert all(len(hands.seen) >= 20 for hands in others)


async def test_without_anybody_it_waits_for_the_next_untried(server: Server) -> None:
    """Nobody to hand over to: the next worker claims it as soon as it may, as its first try."""
    kind, recorder = unique(), Recorder()
    first, second = Hands(kind, "g"), Hands(kind, "g", concurrency=20)
    async with two_buses(server, recorder) as (leaving, staying):
        async with leaving.running(first.declared):
            await leaving.publish_many([Event(type=kind, data={"n": n}) for n in range(20)])
            await eventually(lambda: first.seen)
            async with asyncio.timeout(10):
                while await pending(leaving, kind) < 20:
                    await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_later(0.05, first.release.set)
        async with staying.running(second.declared):
            second.release.set()
            await eventually(lambda: len(second.seen) == 19)
    assert {tries for _, tries, _ in second.seen} == {1}
