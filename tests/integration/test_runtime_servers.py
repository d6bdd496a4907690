"""What only a real server can show of the runtime: delivery, claims, heartbeats, outages, lost groups."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from hyperbus import Backoff, Bus, Delivery, Event, Reject, consumer
from hyperbus.settings import Settings
from hyperbus.signals import (
    Acknowledged,
    Claimed,
    ConnectionChanged,
    EntryDeadLettered,
    GroupRebuilt,
    StreamsFound,
    WorkerChanged,
)
from hyperbus.transport import record_names
from tests.recorder import Recorder, eventually
from tests.servers import Server, server_binaries
from tests.unit.runtime.running import body, unique


def a_bus(server: Server, recorder: Recorder, **settings: Any) -> Bus:
    chosen = {"url": server.url, "heartbeat_ttl": 0.4, "drain_timeout": 1.0, **settings}
    return Bus(settings=Settings(**chosen), listeners=[recorder])


def acked(recorder: Recorder) -> int:
    return sum(signal.count for signal in recorder.of(Acknowledged))


def collects(seen: list[Any], **options: Any) -> Any:
    @consumer(**options)
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))

    return handler


async def test_events_go_through_a_server_in_order(server: Server) -> None:
    """Published, delivered, acked; globs find a stream that is born later; a foreign entry is a full citizen."""
    word, seen, recorder = unique(), [], Recorder()
    prefix = unique("p")
    async with a_bus(server, recorder, prefix=prefix) as bus:
        async with bus.running(collects(seen, group="g", types=[f"{word}.*"], concurrency=1)):
            await bus.publish_many([Event(type=f"{word}.a", data={"n": n}) for n in range(1000)])
            await asyncio.to_thread(server.command, "XADD", f"{prefix}:{word}.a", "*", "data", body(1000, f"{word}.a"))
            await recorder.wait_for(lambda _: acked(recorder) == 1001)
        (info,) = await bus.transport.streams.info([f"{prefix}:{word}.a"])
        assert info is not None
        assert [(group.group, group.pending, group.consumers) for group in info.groups] == [("g", 0, 0)]
    assert seen == [(n, 1) for n in range(1001)]
    assert recorder.of(StreamsFound)


async def test_failures_end_as_on_memory(server: Server) -> None:
    """Retries, dead letters with untouched bytes, and batches that fail only for the one that is bad."""
    kind, recorder, seen = unique(), Recorder(), []

    @consumer(group="g", types=[kind], batch=4, retry=Backoff(initial=0, tries=3))
    async def handler(events: list[Event]) -> None:
        numbers = [event.data["n"] for event in events]
        if 1 in numbers:
            raise ValueError
        if numbers == [2]:
            raise Reject("no")
        seen.extend(numbers)

    async with a_bus(server, recorder) as bus:
        bodies = [body(n, kind) for n in range(4)]
        for written in (*bodies, b"broken \xff"):
            await asyncio.to_thread(server.command, "XADD", f"events:{kind}", "*", "data", written)
        async with bus.running(handler):
            await recorder.wait_for(lambda _: acked(recorder) == 2 and len(recorder.of(EntryDeadLettered)) == 3)
        letters = [letter for _, letter in await bus.transport.streams.dead_letters(f"events:{kind}", "g")]
        assert await bus.transport.streams.pending(f"events:{kind}", "g") == []
    assert sorted(seen) == [0, 3]
    found = {(letter.reason, letter.fields[1], letter.tries) for letter in letters}
    assert found == {
        ("undecodable", b"broken \xff", 1),
        ("exhausted", bodies[1], 3),
        ("rejected", bodies[2], 2),
    }


async def test_a_dead_workers_entries_are_taken_over_and_a_live_ones_never(server: Server) -> None:
    """The heartbeat decides, not how long an entry has been pending."""
    kind, recorder, seen = unique(), Recorder(), []
    async with a_bus(server, recorder) as bus:
        await bus.publish_many([Event(type=kind, data={"n": n}) for n in range(3)])
        streams, records = bus.transport.streams, bus.transport.records
        await streams.create_groups([(f"events:{kind}", "g", b"0-0")])
        for name, count in (("live", 1), ("dead", 2)):
            reader = bus.transport.open_reader()
            await reader.read_group("g", name, [f"events:{kind}"], count=count, block=0)
            await reader.close()
        await records.put(record_names.heartbeat("live"), b"{}", ttl=60)
        async with bus.running(collects(seen, group="g", types=[kind])):
            await recorder.wait_for(lambda _: acked(recorder) == 2)
            (left,) = await streams.pending(f"events:{kind}", "g")
            assert left.consumer == "live"
            await records.delete([record_names.heartbeat("live")])
            await recorder.wait_for(lambda _: acked(recorder) == 3)
    assert seen == [(1, 2), (2, 2), (0, 2)]
    assert [claimed.owner for claimed in recorder.of(Claimed)] == ["dead", "live"]


async def test_a_heartbeat_goes_on_while_the_loop_is_blocked(server: Server) -> None:
    """For several times its time to live."""
    kind, recorder = unique(), Recorder()
    alive: list[Any] = []

    @consumer(group="g", types=[kind])
    async def blocks(event: Event) -> None:
        (started,) = recorder.of(WorkerChanged)
        key = list(server.command("KEYS", f"*{started.consumer}*"))
        for _ in range(6):
            threading.Event().wait(0.2)
            alive.append([server.command("PTTL", name) > 0 for name in key])

    async with a_bus(server, recorder) as bus, bus.running(blocks):
        await bus.publish(Event(type=kind, data={}))
        await recorder.wait_for(lambda _: acked(recorder) == 1)
    assert alive == [[True]] * 6


async def test_a_group_or_a_stream_that_is_lost_comes_back(server: Server) -> None:
    """The worker makes it again and reads from the first entry: nothing is missed."""
    kind, recorder, seen = unique(), Recorder(), []
    async with a_bus(server, recorder) as bus, bus.running(collects(seen, group="g", types=[kind])):
        await bus.publish(Event(type=kind, data={"n": 1}))
        await recorder.wait_for(lambda _: acked(recorder) == 1)
        await asyncio.to_thread(server.command, "XGROUP", "DESTROY", f"events:{kind}", "g")
        await recorder.wait_for(lambda _: recorder.of(GroupRebuilt))
        await bus.publish(Event(type=kind, data={"n": 2}))
        await eventually(lambda: (2, 1) in seen)
        await asyncio.to_thread(server.command, "DEL", f"events:{kind}")
        await recorder.wait_for(lambda _: len(recorder.of(GroupRebuilt)) == 2)
        await bus.publish(Event(type=kind, data={"n": 3}))
        await eventually(lambda: (3, 1) in seen)


@pytest.mark.parametrize("audience", ["group", "every_process"])
async def test_a_key_that_is_no_stream_is_left_alone(server: Server, audience: Any) -> None:
    """The server refuses the whole read because of it; the other streams go on."""
    good, bad, recorder, seen = unique("good"), unique("bad"), Recorder(), []
    declared = collects(seen, group=unique("g"), types=[bad, good], audience=audience)
    async with a_bus(server, recorder) as bus, bus.running(declared):
        await asyncio.to_thread(server.command, "DEL", f"events:{bad}")
        await asyncio.to_thread(server.command, "SET", f"events:{bad}", "no stream")
        await bus.publish(Event(type=good, data={"n": 1}))
        told = await recorder.wait_for_one(ConnectionChanged)
        assert told.part == f"stream events:{bad}"
        await bus.publish(Event(type=good, data={"n": 2}))
        await eventually(lambda: len(seen) == 2)
        await asyncio.to_thread(server.command, "DEL", f"events:{bad}")


async def test_a_server_that_restarts_loses_nothing(server: Server) -> None:
    """Publishers wait, readers come back, everything is handled; the outage is told once by each part."""
    kind, recorder, seen, every = unique(), Recorder(), [], []
    own = Server(server.binary, appendonly=True)
    with own:
        declared = [
            collects(seen, group="g", types=[kind]),
            collects(every, group="e", types=[kind], audience="every_process"),
        ]
        async with a_bus(own, recorder) as bus, bus.running(*declared):
            await bus.publish(Event(type=kind, data={"n": 1}))
            await eventually(lambda: len(seen) == len(every) == 1)
            await asyncio.to_thread(own.stop)
            publishing = asyncio.create_task(bus.publish(Event(type=kind, data={"n": 2}), timeout=10))
            await recorder.wait_for(lambda _: any(not s.connected for s in recorder.of(ConnectionChanged)))
            await asyncio.to_thread(own.start)
            await publishing
            await eventually(lambda: {n for n, _ in seen} == {n for n, _ in every} == {1, 2}, within=10)
    changes = recorder.of(ConnectionChanged)
    for part in {change.part for change in changes}:
        told = [change.connected for change in changes if change.part == part]
        assert told in ([False, True], [False])


async def test_stopping_hands_over_at_once(server: Server) -> None:
    """A worker that stops gives back what it did not begin, untried, and leaves nothing of itself."""
    kind, recorder = unique(), Recorder()
    begun, release = asyncio.Event(), asyncio.Event()

    @consumer(group="g", types=[kind])
    async def handler(event: Event) -> None:
        begun.set()
        await release.wait()

    async with a_bus(server, recorder) as bus:
        await bus.publish_many([Event(type=kind, data={"n": n}) for n in range(5)])
        async with bus.running(handler):
            await asyncio.wait_for(begun.wait(), 5)
            asyncio.get_running_loop().call_later(0.05, release.set)
        seen: list[Any] = []
        async with bus.running(collects(seen, group="g", types=[kind])):
            await eventually(lambda: len(seen) == 4)
        assert seen == [(n, 1) for n in range(1, 5)]
        (info,) = await bus.transport.streams.info([f"events:{kind}"])
        assert info is not None
        assert info.groups[0].consumers == 0


async def test_loops_over_events(server: Server) -> None:
    """`consume` acks and hands back, `read` gives history and what comes."""
    kind, recorder = unique(), Recorder()
    async with a_bus(server, recorder) as bus:
        await bus.publish_many([Event(type=kind, data={"n": n}) for n in range(2)])
        async for event in bus.consume(kind, group="g"):
            if event.data["n"] == 1:
                break
        async with asyncio.timeout(10):
            async for event in bus.consume(kind, group="g"):
                assert event.data["n"] == 1
                break
            read = []
            async for event in bus.read(kind):
                read.append(event.data["n"])
                if len(read) == 2:
                    await bus.publish(Event(type=kind, data={"n": 2}))
                if len(read) == 3:
                    break
        assert read == [0, 1, 2]


PROGRAM = """
import asyncio, sys
from hyperbus import Bus, Event, consumer
from hyperbus.settings import Settings

@consumer(group="g", types=[sys.argv[2]])
async def handler(event: Event) -> None:
    print("begun", flush=True)
    await asyncio.sleep(0.3)
    print("done", flush=True)

async def main():
    async with Bus(settings=Settings(url=sys.argv[1], heartbeat_ttl=0.5)) as bus:
        await bus.publish(Event(type=sys.argv[2], data={}))
        await bus.run(handler)
        print("after", flush=True)

asyncio.run(main())
"""


async def test_a_program_that_runs_consumers_stops_on_sigterm(server: Server, tmp_path: Path) -> None:
    """It drains, and ends by itself with 0."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, server.url, unique(), stdout=asyncio.subprocess.PIPE
    )
    assert program.stdout is not None
    async with asyncio.timeout(15):
        assert await program.stdout.readline() == b"begun\n"
        os.kill(program.pid, signal.SIGTERM)
        assert await program.stdout.read() == b"done\nafter\n"
        assert await program.wait() == 0


def test_there_is_a_server_to_test_with() -> None:
    """Without one, everything above would be skipped in silence."""
    assert server_binaries()
