"""Who is dead and who is not, how soon the dead one's entries are handled, and what that asks of the server.

Set HYPERBUS_TEST_LONG=1 for ten kills and a million entries in place of three and a hundred thousand.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from hyperbus import Bus, Delivery, Event, consumer
from hyperbus.runtime.recovery.handover import HANDED_OVER, HandedOver
from hyperbus.settings import Settings
from hyperbus.signals import Claimed, Recovered, WorkerChanged
from hyperbus.transport import record_names
from tests.call_times import CallTimes
from tests.commands import Running, environment, wait_for, write_modules
from tests.machine_share import slowness
from tests.recorder import Recorder, eventually
from tests.servers import Server
from tests.unit.runtime.running import body, unique

pytestmark = pytest.mark.one_server

LONG = bool(os.environ.get("HYPERBUS_TEST_LONG"))
KILLS = 10 if LONG else 3
MANY = 1_000_000 if LONG else 100_000
PREFETCH = 10_000
#: How soon the last entry of a killed worker is to be handled, on a machine that has nothing else to do.
SOON = 3.0

#: The first process that gets an event hangs for ever, and takes in all it may hold.
HANGS = """
import asyncio, os
from pathlib import Path
from hyperbus import Event, consumer
from hyperbus.runtime.in_flight.pace import Pace

Pace.within = lambda self, seconds: 1_000_000  # as if its handlers had been quick so far
folder = Path(__file__).parent
asleep = {victims!r}

def hangs():
    global asleep
    if asleep:
        asleep = False
        try:
            file = os.open(folder / "victim", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        os.write(file, b"%d" % os.getpid())
        return True
    return False

@consumer(group="g", types=[{kind!r}])
async def handler(event: Event) -> None:
    if hangs():
        await asyncio.Event().wait()
"""


def owners(server: Server, kind: str, group: str = "g") -> dict[str, int]:
    """Return how much is pending with each worker."""
    found = server.command("XPENDING", f"events:{kind}", group)["consumers"]
    return {owner["name"].decode(): owner["pending"] for owner in found}


def settled(server: Server, kind: str) -> Callable[[], bool]:
    """Tell whether everything was delivered and nothing is pending."""

    def look() -> bool:
        (group,) = server.command("XINFO", "GROUPS", f"events:{kind}")
        return group[b"pending"] == 0 and group[b"lag"] == 0

    return look


class Victim:
    """Supervised processes, one of which holds all the entries that it may, and handles none of them."""

    def __init__(self, server: Server, folder: Path, *, supervisors: int, processes: int) -> None:
        self.server = server
        self.folder = folder
        self.kind = unique()
        write_modules(folder, m=HANGS.format(kind=self.kind, victims=True))
        options = ("--processes", str(processes), "--url", server.url, "--http-port", "0", "--websocket-port", "0")
        variables = {"HYPERBUS_PREFETCH": str(PREFETCH)}
        self._stack = ExitStack()
        self.supervisors = [
            self._stack.enter_context(Running("run", "m", *options, folder=folder, variables=variables))
            for _ in range(supervisors)
        ]

    async def fill(self) -> int:
        """Publish until the victim's hands are full; return how much it holds."""
        for running in self.supervisors:
            await asyncio.to_thread(running.wait_until_ready)
        async with Bus(self.server.url) as bus:
            deadline = time.monotonic() + 30
            while (held := self.held()) <= PREFETCH - 500:
                assert time.monotonic() < deadline, f"it holds {held} only"
                await bus.publish_many([Event(type=self.kind, data={"n": n}) for n in range(1000)])
        await asyncio.to_thread(wait_for, lambda: len(owners(self.server, self.kind)) == 1)
        return self.held()

    def held(self) -> int:
        found = owners(self.server, self.kind)
        pid = self.pid
        return next((count for name, count in found.items() if f"-{pid}-" in name), 0) if pid else 0

    @property
    def pid(self) -> int | None:
        noted = self.folder / "victim"
        return int(noted.read_text() or 0) if noted.exists() else None

    def kill(self, *, with_supervisor: bool) -> None:
        assert self.pid
        if with_supervisor:
            (its,) = [running for running in self.supervisors if self.pid in running.workers()]
            its.process.kill()
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        self._stack.close()


async def time_to_recover(server: Server, folder: Path, *, with_supervisor: bool) -> tuple[float, float]:
    """Return the seconds from a kill until all that the victim held was handled by somebody else, and how many it may take.

    Those are the more, the less of a processor the machine gave just then.
    """
    shape = {"supervisors": 2, "processes": 1} if with_supervisor else {"supervisors": 1, "processes": 2}
    victim = Victim(server, folder, **shape)
    try:
        held = await victim.fill()
        before = slowness()
        victim.kill(with_supervisor=with_supervisor)
        started = time.monotonic()
        await asyncio.to_thread(wait_for, settled(server, victim.kind), deadline=60)
        took = time.monotonic() - started
        allowed = SOON * max(before, slowness())
    finally:
        victim.close()
    assert held > PREFETCH - 500
    return took, allowed


@pytest.mark.alone
@pytest.mark.second_try("how soon a kill is found out is up to the machine, too")
@pytest.mark.timeout(600 if LONG else 120)
@pytest.mark.parametrize("with_supervisor", [False, True], ids=["process", "supervisor and process"])
async def test_ten_thousand_entries_of_a_killed_worker_are_handled_within_three_seconds(
    server: Server, tmp_path: Path, with_supervisor: bool
) -> None:
    """At the settings' defaults, whether a supervisor sees the death or a heartbeat has to run out."""
    times = []
    for number in range(KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        times.append(await time_to_recover(server, folder, with_supervisor=with_supervisor))
    took = [seconds for seconds, _ in times]
    print(f"median {statistics.median(took):.2f} s, worst {max(took):.2f} s of {[f'{t:.2f}' for t in took]}")
    assert all(seconds <= allowed for seconds, allowed in times), times


# -- a million pending


def fill(server: Server, kind: str, count: int, owner: str) -> None:
    """Let a consumer that handles nothing have `count` entries pending."""
    client = redis.Redis(port=server.port)
    for start in range(0, count, 5_000):
        pipeline = client.pipeline(transaction=False)
        for n in range(start, start + 5_000):
            pipeline.execute_command("XADD", f"events:{kind}", "*", "data", body(n, kind))
        pipeline.execute()
    client.execute_command("XGROUP", "CREATE", f"events:{kind}", "g", "0")
    for _ in range(0, count, 5_000):
        client.execute_command("XREADGROUP", "GROUP", "g", owner, "COUNT", 5_000, "STREAMS", f"events:{kind}", ">")
    client.close()


def takes_batches(kind: str, seen: list[int]) -> Any:
    @consumer(group="g", types=[kind], batch=500)
    async def handler(events: list[Event]) -> None:
        seen.append(len(events))

    return handler


@pytest.mark.alone
@pytest.mark.timeout(600)
async def test_a_million_entries_of_a_dead_worker_are_claimed_without_a_long_call(server: Server) -> None:
    """Page by page; the server is never held up, and all of it is handled."""
    kind, recorder, seen = unique(), Recorder(), list[int]()
    with Server(server.binary) as own:
        await asyncio.to_thread(fill, own, kind, MANY, "dead")
        settings = Settings(url=own.url, heartbeat_ttl=0.5)
        with CallTimes(own) as times:
            async with Bus(settings=settings, listeners=[recorder]) as bus, bus.running(takes_batches(kind, seen)):
                started = time.monotonic()
                await recorder.wait_for(lambda _: sum(seen) >= MANY, within=300)
                print(f"{MANY} claimed and handled in {time.monotonic() - started:.1f} s")
        assert times.too_long() == []
    assert sum(signal.count for signal in recorder.of(Claimed)) == MANY


@pytest.mark.alone
@pytest.mark.timeout(600)
async def test_a_million_entries_of_a_live_worker_are_found_again_without_a_long_call(server: Server) -> None:
    """What it was handed it takes in page by page, while another worker looks on and claims none of it."""
    kind, recorder, seen = unique(), Recorder(), list[int]()
    looking = Recorder()
    with Server(server.binary) as own:
        await asyncio.to_thread(fill, own, kind, MANY, "gone")
        settings = Settings(url=own.url, heartbeat_ttl=0.5)
        times = CallTimes(own)
        async with (
            Bus(settings=settings, listeners=[recorder]) as bus,
            Bus(settings=settings, listeners=[looking]) as on,
        ):
            await bus.transport.records.put(record_names.heartbeat("gone"), b"{}", ttl=600)
            with times:
                async with bus.running(takes_batches(kind, seen)), on.running(takes_batches(kind, [])):
                    name = (await recorder.wait_for_one(WorkerChanged)).consumer
                    stream, streams, after = f"events:{kind}", bus.transport.streams, b"0-0"
                    while page := await streams.pending(stream, "g", consumer="gone", after=after, count=500):
                        await streams.hand_over(stream, "g", "gone", name, [(entry.id, 1) for entry in page])
                        after = page[-1].id
                    notice = msgspec.json.encode(HandedOver(name, (stream,)))
                    await streams.append_notice(record_names.notices_key("events"), HANDED_OVER, notice, keep=1_000)
                    await recorder.wait_for(lambda _: sum(seen) >= MANY, within=300)
        assert times.too_long() == []
    assert sum(signal.count for signal in recorder.of(Recovered)) == MANY
    assert recorder.of(Claimed) == looking.of(Claimed) == []


# -- the living, and those who come back

LONG_HANDLER = """
import asyncio, os, time
from pathlib import Path
from hyperbus import Event, consumer

begun = os.open(Path(__file__).with_name("begun"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)

@consumer(group="g", types=[{kind!r}])
async def handler(event: Event) -> None:
    os.write(begun, b"%d\\n" % event.data["n"])
    {sleep}({seconds})
"""


@pytest.mark.parametrize("sleep", ["await asyncio.sleep", "time.sleep"])
def test_a_handler_that_runs_ten_times_the_ttl_runs_once(server: Server, tmp_path: Path, sleep: str) -> None:
    """Also when it blocks the event loop: heartbeats come from a thread, and nobody claims from the living."""
    kind, ttl = unique(), 0.5
    write_modules(tmp_path, m=LONG_HANDLER.format(kind=kind, sleep=sleep, seconds=10 * ttl))
    options = ("--processes", "2", "--url", server.url, "--http-port", "0")
    with Running("run", "m", *options, folder=tmp_path, variables={"HYPERBUS_HEARTBEAT_TTL": str(ttl)}) as running:
        running.wait_until_ready()
        server.command("XADD", f"events:{kind}", "*", "data", body(1, kind))
        wait_for((tmp_path / "begun").read_text)
        wait_for(settled(server, kind), lambda: running.err[-4000:])
        assert running.stop() == 0
        assert running.log("entries of a dead consumer claimed") == []
    assert (tmp_path / "begun").read_text() == "1\n"


ZOMBIE = """
import asyncio, sys
from pathlib import Path
from hyperbus import Backoff, Bus, Event, Reject, Retry, consumer
from hyperbus.settings import Settings

url, kind, go = sys.argv[1:]
ended = []

@consumer(group="g", types=[kind], concurrency=4, retry=Backoff(initial=30))
async def handler(event: Event) -> None:
    print("begun", flush=True)
    while not Path(go).exists():
        await asyncio.sleep(0.01)
    ended.append(event)
    match event.data["n"]:
        case 0: raise Retry(after=30)
        case 1: raise Reject("no")
        case 2: raise ValueError
        case 3: return

async def main():
    async with Bus(settings=Settings(url=url, heartbeat_ttl=0.5)) as bus:
        async with bus.running(handler):
            while len(ended) < 4:
                await asyncio.sleep(0.01)

asyncio.run(main())
"""


async def test_a_zombie_changes_nothing_of_what_is_no_longer_its_own(server: Server, tmp_path: Path) -> None:
    """Stopped for longer than the TTL, and back: its retries and dead letters are refused, its late ack is harmless."""
    kind, recorder, seen, release = unique(), Recorder(), list[tuple[int, int]](), asyncio.Event()

    @consumer(group="g", types=[kind], concurrency=4)
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))
        await release.wait()

    go = tmp_path / "go"
    zombie = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ZOMBIE, server.url, kind, str(go), stdout=asyncio.subprocess.PIPE, env=environment()
    )
    assert zombie.stdout is not None
    settings = Settings(url=server.url, heartbeat_ttl=0.5)
    try:
        async with asyncio.timeout(30), Bus(settings=settings, listeners=[recorder]) as bus:
            await bus.publish_many([Event(type=kind, data={"n": n}) for n in range(4)])
            for _ in range(4):
                assert await zombie.stdout.readline() == b"begun\n"
            zombie.send_signal(signal.SIGSTOP)
            async with bus.running(handler):
                await eventually(lambda: len(seen) == 4, within=15)
                go.touch()
                zombie.send_signal(signal.SIGCONT)
                assert await zombie.wait() == 0
                left = await bus.transport.streams.pending(f"events:{kind}", "g")
                (name,) = {started.consumer for started in recorder.of(WorkerChanged)}
                assert [(entry.consumer, entry.delivery_count) for entry in left] == [(name, 2)] * 3
                release.set()
                await asyncio.to_thread(wait_for, settled(server, kind))
            assert await bus.transport.streams.dead_letters(f"events:{kind}", "g") == []
    finally:
        if zombie.returncode is None:
            zombie.kill()
            await zombie.wait()
    assert sorted(seen) == [(n, 2) for n in range(4)]
