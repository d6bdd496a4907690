"""Retries and parking on real servers: over a killed process, a full server, and a group that was lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import pytest

from hyperbus import Backoff, Bus, Delivery, Event, Reject, Retry, consumer
from hyperbus.runtime.outcomes import retry_scheduler as retrier
from hyperbus.settings import Settings
from hyperbus.signals import Acknowledged, EntryDeadLettered
from hyperbus.transport import Parked
from tests.recorder import Recorder
from tests.servers import Server, server_binaries
from tests.unit.runtime.running import body, unique

#: A process whose handler fails and asks for another try after WAIT seconds.
VICTIM = """
import asyncio, sys
from hyperbus import Bus, Event, Retry, consumer
from hyperbus.settings import Settings

url, kind, wait = sys.argv[1], sys.argv[2], float(sys.argv[3])

@consumer(group="g", types=[kind])
async def handler(event: Event) -> None:
    raise Retry(after=wait)

async def main() -> None:
    async with Bus(settings=Settings(url=url, heartbeat_ttl=0.4)) as bus:
        await bus.run(handler)

asyncio.run(main())
"""


def a_bus(server: Server, recorder: Recorder, **settings: Any) -> Bus:
    chosen = {"url": server.url, "heartbeat_ttl": 0.4, "drain_timeout": 1.0, **settings}
    return Bus(settings=Settings(**chosen), listeners=[recorder])


def acked(recorder: Recorder) -> int:
    return sum(heard.count for heard in recorder.of(Acknowledged))


def collects(seen: list[Any], kind: str, **options: Any) -> Any:
    @consumer(group="g", types=[kind], **options)
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries, time.time()))

    return handler


async def until(holds: Any, *, within: float = 5.0) -> None:
    """Wait until what `holds` awaits is true."""
    async with asyncio.timeout(within):
        while not await holds():
            await asyncio.sleep(0.01)


class Victim:
    """A worker in a process of its own."""

    def __init__(self, server: Server, kind: str, wait: float) -> None:
        command = [sys.executable, "-c", VICTIM, server.url, kind, str(wait)]
        self._process = subprocess.Popen(command, cwd=Path(__file__).parents[2], env={**os.environ, "HYPERBUS_URL": ""})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


async def test_a_wait_survives_the_worker_that_was_killed(server: Server) -> None:
    """Who takes over waits out the rest, and the try that never began is not counted."""
    kind, recorder, seen = unique(), Recorder(), []
    async with a_bus(server, recorder) as bus:
        streams, stream = bus.transport.streams, f"events:{kind}"
        await bus.publish(Event(type=kind, data={"n": 0}))
        due: list[float | None] = [None]

        async def scheduled() -> bool:
            pending = await streams.pending(stream, "g")
            due[:] = await streams.retry_times(stream, "g", [entry.id for entry in pending]) if pending else [None]
            return due[0] is not None

        await streams.create_groups([(stream, "g", b"0-0")])
        with Victim(server, kind, 4.0) as victim:
            await until(scheduled, within=15)
            victim.kill()
        async with bus.running(collects(seen, kind)):
            await recorder.wait_for(lambda _: acked(recorder) == 1, within=10)
        assert due[0] is not None
        ((n, tries, handled_at),) = seen
        assert (n, tries) == (0, 2)
        assert due[0] <= handled_at < due[0] + 1.0
        assert await streams.pending(stream, "g") == []
        assert await asyncio.to_thread(server.command, "EXISTS", f"{{{stream}}}:retries:g") == 0


async def test_a_long_wait_is_parked_and_survives_the_worker_that_was_killed(server: Server) -> None:
    """Nothing of it is pending; when it is due, whoever lives takes it."""
    kind, recorder, seen = unique(), Recorder(), []
    async with a_bus(server, recorder) as bus:
        streams, stream = bus.transport.streams, f"events:{kind}"
        await bus.publish(Event(type=kind, data={"n": 0}))
        await streams.create_groups([(stream, "g", b"0-0")])

        async def is_parked() -> bool:
            return await streams.parked_count([(stream, "g")]) == [1]

        with Victim(server, kind, 3600.0) as victim:
            await until(is_parked, within=15)
            victim.kill()
        assert await streams.pending(stream, "g") == []
        later = time.time() + 7200
        (taken,) = await streams.take_parked(stream, "g", "me", now=later, lease=1, count=1)
        assert (taken.tries, taken.due) == (1, pytest.approx(time.time() + 3600, abs=20))
        assert await streams.reschedule_parked(stream, "g", "me", [(taken.entry_id, 1, time.time())]) == [True]
        async with bus.running(collects(seen, kind)):
            await recorder.wait_for(lambda _: acked(recorder) == 1, within=10)
            await until(lambda: _nothing_parked(bus, stream))
    assert [(n, tries) for n, tries, _ in seen] == [(0, 2)]


async def _nothing_parked(bus: Bus, stream: str) -> bool:
    return await bus.transport.streams.parked_count([(stream, "g")]) == [0]


async def test_parked_entries_end_as_pending_ones_do(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried again, given up, or done; what a dead worker held comes back within 3 s."""
    monkeypatch.setattr(retrier, "PARK_AFTER", 0.05)
    monkeypatch.setattr("hyperbus.runtime.outcomes.parked_entries.LOOK", 0.2)
    kind, recorder, seen = unique(), Recorder(), []

    @consumer(group="g", types=[kind], retry={ValueError: Backoff(initial=0.3, jitter=0, tries=3)}, concurrency=4)
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))
        if event.data["n"] == 0:
            raise ValueError
        if event.data["n"] == 1 and delivery.tries < 3:
            raise Retry(after=0.2)
        if event.data["n"] == 2 and delivery.tries == 2:
            raise Reject("no")
        if delivery.tries == 1:
            raise Retry(after=0.2)

    async with a_bus(server, recorder) as bus:
        streams, stream = bus.transport.streams, f"events:{kind}"
        async with bus.running(handler):
            await bus.publish_many([Event(type=kind, data={"n": n}) for n in range(4)])
            await recorder.wait_for(lambda _: acked(recorder) >= 2 and len(recorder.of(EntryDeadLettered)) == 2)
            await until(lambda: _nothing_parked(bus, stream))
            assert await streams.pending(stream, "g") == []
        letters = [letter for _, letter in await streams.dead_letters(stream, "g")]
        assert sorted((letter.reason, letter.tries) for letter in letters) == [("exhausted", 3), ("rejected", 2)]
        keys = [f"{{{stream}}}:parked:g", f"{{{stream}}}:parked_due:g", f"{{{stream}}}:retries:g"]
        assert await asyncio.to_thread(server.command, "EXISTS", *keys) == 0
    assert sorted(seen) == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1), (3, 2)]


async def test_what_a_dead_worker_took_of_the_parked_comes_back(server: Server) -> None:
    """When its lease is over; a live worker's is renewed for as long as the handler runs."""
    kind, recorder, seen = unique(), Recorder(), []

    @consumer(group="g", types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((delivery.tries, time.time()))
        await asyncio.sleep(2.0)

    async with a_bus(server, recorder) as bus:
        streams, stream = bus.transport.streams, f"events:{kind}"
        await _park(server, bus, kind)
        (_,) = await streams.take_parked(stream, "g", "dead", now=time.time(), lease=0.6, count=1)
        died = time.time()
        async with bus.running(handler), bus.running(handler):
            await recorder.wait_for(lambda _: acked(recorder) == 1)
            await until(lambda: _nothing_parked(bus, stream))
    ((tries, began),) = seen
    assert tries == 2
    assert 0.5 < began - died < 3


async def _park(server: Server, bus: Bus, kind: str, *, wait: float = 0.0) -> None:
    """Let a worker that is gone have parked an entry that is due after a while."""
    streams, stream = bus.transport.streams, f"events:{kind}"
    await asyncio.to_thread(server.command, "XADD", stream, "*", "data", body(0, kind))
    await streams.create_groups([(stream, "g", b"0-0")])
    reader = bus.transport.open_reader()
    ((_, (entry,)),) = await reader.read_group("g", "gone", [stream], count=1, block=0)
    await reader.close()
    now = time.time()
    assert await streams.park(stream, "g", "gone", [Parked(entry.id, entry.fields, 1, now, now + wait)]) == [True]


async def test_what_is_parked_and_pending_at_once_ends_in_both_places(server: Server) -> None:
    """A group that was lost and made again delivers what is parked too: handled at least once, nothing left over."""
    kind, recorder, seen = unique(), Recorder(), []
    async with a_bus(server, recorder) as bus:
        streams, stream = bus.transport.streams, f"events:{kind}"
        await _park(server, bus, kind)
        await asyncio.to_thread(server.command, "XGROUP", "DESTROY", stream, "g")
        async with bus.running(collects(seen, kind)):
            await until(lambda: _nothing_parked(bus, stream))

            async def nothing_pending() -> bool:
                return bool(seen) and await streams.pending(stream, "g") == []

            await until(nothing_pending)
    assert {n for n, *_ in seen} == {0}
    assert len(seen) <= 2


@pytest.fixture(params=list(server_binaries()))
def small_server(request: pytest.FixtureRequest) -> Any:
    """A server of the test's own, so that its memory may be filled."""
    with Server(server_binaries()[request.param]) as own:
        yield own


async def test_a_full_server_keeps_what_it_cannot_park(small_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory, the entry stays pending with its schedule; it is tried again and acked all the same."""
    monkeypatch.setattr(retrier, "PARK_AFTER", 0.05)
    kind, recorder, seen = unique(), Recorder(), []
    full = asyncio.Event()

    @consumer(group="g", types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        await full.wait()
        seen.append(delivery.tries)
        if delivery.tries == 1:
            raise Retry(after=1.0)

    async with a_bus(small_server, recorder) as bus:
        streams, stream = bus.transport.streams, f"events:{kind}"
        async with bus.running(handler):
            await bus.publish(Event(type=kind, data={"n": 0}))

            async def pending_entry() -> bool:
                return len(await streams.pending(stream, "g")) == 1

            await until(pending_entry)
            await asyncio.to_thread(small_server.command, "CONFIG", "SET", "maxmemory", "1")
            full.set()

            async def scheduled() -> bool:
                (entry,) = await streams.pending(stream, "g")
                return await streams.retry_times(stream, "g", [entry.id]) != [None]

            await until(scheduled)
            assert await streams.parked_count([(stream, "g")]) == [0]
            await recorder.wait_for(lambda _: acked(recorder) == 1)
            assert await streams.pending(stream, "g") == []
            await asyncio.to_thread(small_server.command, "CONFIG", "SET", "maxmemory", "0")
    assert seen == [1, 2]


async def test_a_full_server_lets_parked_entries_end(small_server: Server) -> None:
    """Taken, handled and finished, given back, or buried: none of it needs memory that is not there."""
    kind, recorder = unique(), Recorder()
    seen: list[tuple[int, int]] = []

    @consumer(group="g", types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))
        if delivery.tries == 2:
            raise Retry(after=0)
        raise Reject("no")

    async with a_bus(small_server, recorder) as bus:
        streams, stream = bus.transport.streams, f"events:{kind}"
        await _park(small_server, bus, kind, wait=0.8)
        async with bus.running(handler):  # its heartbeat is stored while there is memory
            await asyncio.to_thread(small_server.command, "CONFIG", "SET", "maxmemory", "1")
            await recorder.wait_for_one(EntryDeadLettered, within=10)
            await until(lambda: _nothing_parked(bus, stream))
            await asyncio.to_thread(small_server.command, "CONFIG", "SET", "maxmemory", "0")
        ((_, letter),) = await streams.dead_letters(stream, "g")
    assert letter.reason == "rejected"
    assert seen == [(0, 2), (0, 3)]
