"""Large events were read by the hundred: memory had no bound, and over a slow link nothing was ever handled."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis

from hyperbus import Bus, Delivery, Event, consumer
from hyperbus.settings import Settings
from tests.commands import environment
from tests.recorder import eventually
from tests.servers import Server
from tests.slow_link import slow_link
from tests.unit.runtime.running import body, unique

pytestmark = pytest.mark.one_server

KIB, MIB = 1024, 1024 * 1024
#: What a worker may take beyond one that is idle, in bytes, besides its `prefetch_bytes` (16 MiB).
BEYOND = 64 * 10**6

#: Says how much memory it took at most, idle and then with all that was published meanwhile.
MEASURED = """
import asyncio, json, sys
from hyperbus import Bus, Event, consumer
from hyperbus.settings import Settings

url, kinds, groups, most, way = json.loads(sys.argv[1])
seen = 0

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

def declare(group):
    @consumer(group=group, types=kinds, audience="every_process" if way == "every_process" else "group")
    async def handler(event: Event) -> None:
        global seen
        seen += 1
        await asyncio.sleep(0)
    return handler

async def filled():
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

async def read(bus):
    global seen
    await filled()
    async for event in bus.read(*kinds):
        seen += 1
        if seen == most:
            return

async def consume(bus):
    if way == "group":
        await filled()
    async with bus.running(*map(declare, groups)), asyncio.timeout(50):
        if way != "group":
            await filled()
        while seen < most:
            await asyncio.sleep(0.01)

@consumer(group="idle", types=["idle.t"])
async def idle(event: Event) -> None:
    pass

async def main():
    async with Bus(settings=Settings(url=url, retain_bytes=2**30)) as bus, bus.running(idle):
        await asyncio.sleep(0.1)
        before = peak()
        await (read(bus) if way == "read" else consume(bus))
        print(json.dumps([before, peak()]), flush=True)

asyncio.run(main())
"""


async def peak_beyond_idle(
    server: Server, kinds: list[str], most: int, fill: Callable[[], None], *, groups: int = 1, way: str = "group"
) -> int:
    """Return how much memory a program took, with all its entries, beyond what it took before: bytes."""
    about = json.dumps([server.url, kinds, [unique() for _ in range(groups)], most, way])
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEASURED, about,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert program.stdout is not None
    assert program.stdin is not None
    try:
        async with asyncio.timeout(60):
            assert await program.stdout.readline() == b"ready\n"
            await asyncio.to_thread(fill)
            program.stdin.write(b"\n")
            idle, reached = json.loads(await program.stdout.readline())
            await program.wait()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    print(f"{(reached - idle) / MIB:.0f} MiB beyond idle")
    return int(reached - idle)


def append(server: Server, kind: str, count: int, *sizes: int) -> None:
    """Append entries as another program would, in one step: an event of the first size, and other fields beside it."""
    client = redis.Redis(port=server.port)
    pipeline = client.pipeline(transaction=True)
    others = [word for number, size in enumerate(sizes[1:]) for word in (f"other{number}", b"x" * size)]
    for n in range(count):
        event = body(n, kind, data={"n": n, "text": "x" * sizes[0]}) if sizes[0] else body(n, kind)
        pipeline.execute_command("XADD", f"events:{kind}", "*", *others, "data", event)
    pipeline.execute()
    client.close()


@pytest.mark.parametrize("way", ["group", "every_process", "read"])
async def test_twenty_streams_of_large_events_take_no_more_memory_than_they_may(server: Server, way: str) -> None:
    """100 events of 1 MiB, five in each stream, at once."""
    kinds = [unique() for _ in range(20)]

    def fill() -> None:
        for kind in kinds:
            append(server, kind, 5, MIB - 500)

    assert await peak_beyond_idle(server, kinds, 100, fill, way=way) < 16 * MIB + BEYOND


async def test_groups_beside_each_other_take_no_more_than_that_each(server: Server) -> None:
    """150 events of 1 MiB, for three groups of one process."""
    kind = unique()

    def fill() -> None:
        append(server, kind, 150, MIB - 500)

    assert await peak_beyond_idle(server, [kind], 450, fill, groups=3) < 3 * 16 * MIB + BEYOND


async def test_all_fields_of_a_foreign_entry_count(server: Server) -> None:
    """Two fields of 1 MB beside a small event."""
    kind = unique()

    def fill() -> None:
        append(server, kind, 100, 0, 10**6, 10**6)

    assert await peak_beyond_idle(server, [kind], 100, fill) < 16 * MIB + BEYOND


async def test_large_events_behind_small_ones_take_no_more_either(server: Server) -> None:
    """A read of hundreds of small ones was right for those before."""
    kind = unique()

    def fill() -> None:
        append(server, kind, 3000, 10)
        append(server, kind, 150, MIB - 500)

    assert await peak_beyond_idle(server, [kind], 3150, fill) < 16 * MIB + BEYOND


class Tries:
    """A consumer that notes how often each event was handled, and at which try."""

    def __init__(self, *kinds: str) -> None:
        self.seen: dict[tuple[str, int], list[int]] = {}

        @consumer(group=unique(), types=kinds)
        async def handler(event: Event, delivery: Delivery) -> None:
            self.seen.setdefault((event.type, event.data["n"]), []).append(delivery.tries)

        self.declared: Any = handler


@pytest.mark.parametrize("streams", [1, 10])
async def test_a_slow_link_brings_all_of_them(server: Server, streams: int) -> None:
    """10 MiB over 8 MB/s, where an answer may take 0.3 s: each is handled once."""
    kinds = [unique() for _ in range(streams)]
    for kind in kinds:
        append(server, kind, 40 // streams, 256 * KIB)
    tries = Tries(*kinds)
    async with slow_link(server.port, bytes_per_second=8_000_000) as port:
        settings = Settings(url=f"redis://127.0.0.1:{port}/0", command_timeout=0.3, connect_timeout=5.0)
        async with Bus(settings=settings) as bus, bus.running(tries.declared):
            await eventually(lambda: len(tries.seen) == 40, within=40)
    assert list(tries.seen.values()) == [[1]] * 40


@pytest.mark.parametrize("streams", [1, 10])
async def test_a_server_that_sends_little_at_a_time_is_asked_for_little(server: Server, streams: int) -> None:
    """It ends connections whose answers wait with more than a megabyte; all are handled, at their first try."""
    kinds = [unique() for _ in range(streams)]
    limit = ("--client-output-buffer-limit", "normal", "1mb", "0", "0")
    with Server(server.binary, arguments=limit) as own:
        for kind in kinds:
            append(own, kind, 40 // streams, 256 * KIB)
        tries = Tries(*kinds)
        async with AsyncExitStack() as stack:
            bus = await stack.enter_async_context(Bus(settings=Settings(url=own.url)))
            started = time.monotonic()
            await stack.enter_async_context(bus.running(tries.declared))
            await eventually(lambda: len(tries.seen) == 40, within=40)
            print(f"{time.monotonic() - started:.1f} s")
    assert {min(each) for each in tries.seen.values()} == {1}


@pytest.mark.parametrize("settings", [{"prefetch": 10}, {"prefetch_bytes": 10 * 100 * KIB}], ids=["count", "bytes"])
async def test_a_batch_that_cannot_fill_up_does_not_linger(server: Server, settings: dict[str, int]) -> None:
    """All that a worker may hold is in it."""
    kind, seen = unique(), list[int]()
    append(server, kind, 30, 100 * KIB)

    @consumer(group=unique(), types=[kind], batch=100, linger=30)
    async def handler(events: list[Event]) -> None:
        seen.append(len(events))

    async with Bus(settings=Settings(url=server.url, drain_timeout=0.1, **settings)) as bus, bus.running(handler):
        await eventually(lambda: sum(seen) >= 20, within=15)
