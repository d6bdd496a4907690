"""`hyperbus run` as a user starts it: what it handles, what it survives, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from hyperbus import Bus, Event
from hyperbus.transports.embedded.transport import find_server
from tests.commands import DEADLINE, Running, hyperbus, wait_for, write_modules
from tests.servers import Server

pytestmark = pytest.mark.one_server

#: The ready-made consumers' groups.
GROUPS = ("db_writers", "metrics_collectors", "log_aggregators")
#: How long the load lasts, in seconds, and how many events a second there are.
LOAD_SECONDS = float(os.environ.get("HYPERBUS_TEST_LOAD_SECONDS", "6"))
LOAD_RATE = 2_000


@pytest.fixture(scope="module")
def place() -> Iterator[Server]:
    with Server(find_server()) as server:
        yield server


def variables(server: Server, folder: Path, prefix: str) -> dict[str, str]:
    return {
        "HYPERBUS_URL": server.url,
        "HYPERBUS_PREFIX": prefix,
        "HYPERBUS_HTTP_PORT": "0",
        "HYPERBUS_WEBSOCKET_PORT": "0",
        "HYPERBUS_DATABASE_URL": f"sqlite:///{folder / 'events.db'}",
        "HYPERBUS_SCAN_INTERVAL": "0.5",
    }


def rows(folder: Path, column: str) -> list[str]:
    database = folder / "events.db"
    if not database.exists():
        return []
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return [row[0] for row in connection.execute(f"SELECT {column} FROM workflow_updates")]
    finally:
        connection.close()


def envelope(number: int) -> str:
    return json.dumps(
        {"id": str(number), "type": "workflow.started", "timestamp": "2026-01-01T00:00:00Z", "data": {"n": number}}
    )


def process_of(connection: ClientConnection, workers: list[int]) -> int:
    """Return which of these processes holds the other end of a connection."""
    mine, its = connection.local_address[1], connection.remote_address[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if (int(words[1].split(":")[1], 16), int(words[2].split(":")[1], 16)) == (its, mine):
            held = f"socket:[{words[9]}]"
            for pid in workers:
                for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                    if descriptor.is_symlink() and os.readlink(descriptor) == held:
                        return pid
    return 0


async def one_client_a_process(stack: AsyncExitStack, url: str, workers: list[int]) -> list[ClientConnection]:
    """Connect until every process holds a client."""
    found: dict[int, ClientConnection] = {}
    async with asyncio.timeout(DEADLINE):
        while len(found) < len(workers):
            client = await stack.enter_async_context(connect(url))
            pid = await until(lambda: process_of(client, workers))  # noqa: B023 - called before the next one is
            found.setdefault(pid, client)
    return list(found.values())


async def until(look: Callable[[], Any], why: Callable[[], str] | None = None, *, deadline: float = DEADLINE) -> Any:
    return await asyncio.to_thread(wait_for, look, why, deadline=deadline)


async def test_an_entry_of_any_program_is_handled_by_every_group(tmp_path, server):
    """XADD by hand reaches database, metrics, log and the clients of each process; a broken one harms nothing."""
    prefix = f"raw-{uuid.uuid4().hex[:8]}"
    stream = f"{prefix}:workflow.started"
    settings = variables(server, tmp_path, prefix)

    def handled(count: int) -> bool:
        if not server.command("EXISTS", stream):
            return False
        groups = server.command("XINFO", "GROUPS", stream)
        named = {group[b"name"].decode(): group for group in groups}
        return set(named) == set(GROUPS) and all(
            (group[b"entries-read"], group[b"pending"]) == (count, 0) for group in named.values()
        )

    with Running("run", "consumers", "--processes", "2", folder=tmp_path, variables=settings) as running:
        listening = await asyncio.to_thread(running.wait_until_ready)
        async with AsyncExitStack() as stack:
            clients = await one_client_a_process(
                stack, f"{listening['websocket']}/?types=workflow.*", running.workers()
            )
            server.command("XADD", stream, "*", "data", envelope(1))
            await until(lambda: handled(1), lambda: running.err)
            broken = b'{"id":"2","type":"workflow.started" \xff\x00\r\n'
            server.command("XADD", stream, "*", "data", broken)
            await until(lambda: handled(2), lambda: running.err)
            server.command("XADD", stream, "*", "data", envelope(3))
            await until(lambda: handled(3), lambda: running.err)
            async with asyncio.timeout(DEADLINE):
                shown = [[json.loads(await client.recv())["id"] for _ in range(2)] for client in clients]
        assert shown == [["1", "3"], ["1", "3"]]
        assert await until(lambda: len(rows(tmp_path, "event_id")) == 2)
        assert sorted(rows(tmp_path, "event_id")) == ["1", "3"]
        for group in GROUPS:
            ((_, letter),) = server.command("XRANGE", f"{{{stream}}}:dead:{group}", "-", "+")
            assert letter[b"data"] == broken
            assert letter[b"@reason"] == b"undecodable"
            assert server.command("XPENDING", stream, group)["pending"] == 0
        with urllib.request.urlopen(listening["metrics"], timeout=10) as answer:
            metrics = answer.read().decode()
        counted = re.findall(r'^hyperbus_events_total\{type="workflow.started"\} (\S+)$', metrics, re.MULTILINE)
        assert [float(value) for value in counted] == [2.0]
        assert running.stop() == 0
        assert sum(line["total"] for line in running.log("events")) == 2


class Load:
    """Publishes at a steady rate, and remembers the entry id of every event whose publish returned."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.stored: list[str] = []

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Publish while the body runs."""
        running = asyncio.create_task(self._run())
        try:
            yield
            assert not running.done(), "publishing has failed"
        finally:
            running.cancel()
            await asyncio.wait((running,))

    async def _run(self) -> None:
        started, due = time.monotonic(), 0
        async with asyncio.TaskGroup() as tasks:
            while True:
                # a busy machine gets what it can take
                while due < (time.monotonic() - started) * LOAD_RATE and due - len(self.stored) < 200:
                    due += 1
                    tasks.create_task(self._publish(due))
                await asyncio.sleep(0.01)  # the pace of the load

    async def _publish(self, number: int) -> None:
        event = Event(type=f"load.kind_{number % 4}", data={"n": number}, workflow_id=f"wf-{number % 50}")
        self.stored.append(f"{event.type} {await self._bus.publish(event)}")


def missing(stored: list[str], folder: Path) -> set[str]:
    """Return which published events are not in the database."""
    return set(stored) - set(rows(folder, "type || ' ' || entry_id"))


@pytest.mark.timeout(LOAD_SECONDS * 2 + 240)
async def test_what_was_published_is_written_though_workers_are_killed(tmp_path, place):
    """Twice a process is killed under load: it is started again, and every event whose publish returned is a row."""
    prefix = f"kills-{uuid.uuid4().hex[:8]}"
    settings = variables(place, tmp_path, prefix)
    with Running("run", "consumers", "--processes", "2", folder=tmp_path, variables=settings) as running:
        await asyncio.to_thread(running.wait_until_ready)
        async with Bus(place.url, prefix=prefix) as bus:
            load = Load(bus)
            async with load.going_on():
                for kill in (1, 2):
                    await asyncio.sleep(LOAD_SECONDS / 3)  # the load's own time
                    victim = running.workers()[0]
                    os.kill(victim, signal.SIGKILL)
                    await until(lambda: len(running.log("worker process died")) == kill)  # noqa: B023 - awaited here
                    await until(lambda: len(running.workers()) == 2)
                    assert victim not in running.workers()
                await asyncio.sleep(LOAD_SECONDS / 3)
        assert len(load.stored) > LOAD_SECONDS * LOAD_RATE * 0.5
        await until(
            lambda: not missing(load.stored, tmp_path), lambda: f"{len(missing(load.stored, tmp_path))} missing"
        )
        twice = [row for row, count in Counter(rows(tmp_path, "event_id")).items() if count > 1]
        assert twice == []
        assert [line["reason"] for line in running.log("worker process died")] == ["killed by SIGKILL"] * 2
        assert running.stop() == 0


@pytest.mark.timeout(LOAD_SECONDS * 2 + 240)
async def test_a_stop_under_load_loses_nothing(tmp_path, place):
    """SIGTERM drains and ends with 0 within the drain time; what came meanwhile is written after the next start."""
    prefix = f"stop-{uuid.uuid4().hex[:8]}"
    settings = variables(place, tmp_path, prefix) | {"HYPERBUS_DRAIN_TIMEOUT": "15"}
    async with Bus(place.url, prefix=prefix) as bus:
        load = Load(bus)
        async with load.going_on():
            with Running("run", "consumers", "--processes", "2", folder=tmp_path, variables=settings) as running:
                await asyncio.to_thread(running.wait_until_ready)
                await asyncio.sleep(LOAD_SECONDS / 3)  # the load's own time
                began = time.monotonic()
                assert await asyncio.to_thread(running.stop) == 0, running.err
                assert time.monotonic() - began < 15
                assert running.log("worker process killed: it did not drain in time") == []
            assert len(rows(tmp_path, "event_id")) > 100
            await until(lambda: bool(missing(load.stored, tmp_path)), lambda: "nothing came meanwhile")
    with Running("run", "consumers", "--processes", "2", folder=tmp_path, variables=settings) as running:
        await until(
            lambda: not missing(load.stored, tmp_path), lambda: f"{len(missing(load.stored, tmp_path))} missing"
        )
        assert await asyncio.to_thread(running.stop) == 0


SLOW = """
import asyncio
from hyperbus import Event, consumer

@consumer(types=["slow.thing"])
async def slow(event: Event) -> None:
    print("handling", flush=True)
    await asyncio.sleep(60)
"""


def run_slow(folder: Path, server: Server, prefix: str, drain_timeout: str) -> Running:
    write_modules(folder, slow=SLOW)
    settings = variables(server, folder, prefix) | {"HYPERBUS_DRAIN_TIMEOUT": drain_timeout}
    hyperbus("publish", "slow.thing", "{}", folder=folder, variables=settings)
    return Running("run", "slow", folder=folder, variables=settings)


def test_a_handler_that_does_not_end_is_cut_off_at_the_drain_time(tmp_path, place):
    """The exit code says so, and the entry stays pending for the next start."""
    prefix = f"drain-{uuid.uuid4().hex[:8]}"
    with run_slow(tmp_path, place, prefix, "0.5") as running:
        wait_for(lambda: "handling" in running.err, lambda: running.err)
        assert running.stop() == 22
        assert running.err.splitlines()[-1].startswith("hyperbus: 1 of 1 processes did not finish in time")
    assert place.command("XPENDING", f"{prefix}:slow.thing", "slow")["pending"] == 1


def test_a_second_signal_stops_at_once(tmp_path, place):
    """Nothing waits for the drain time any more."""
    prefix = f"twice-{uuid.uuid4().hex[:8]}"
    with run_slow(tmp_path, place, prefix, "30") as running:
        wait_for(lambda: "handling" in running.err, lambda: running.err)
        began = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        wait_for(lambda: "draining" in running.err, lambda: running.err)
        assert running.stop() == 22
        assert time.monotonic() - began < 25


def test_tail_shows_what_publish_sent(tmp_path, place):
    """One JSON object a line, with what the command line said about the event."""
    prefix = f"tail-{uuid.uuid4().hex[:8]}"
    settings = variables(place, tmp_path, prefix)
    ids = [
        hyperbus(
            "publish", "a.b", f'{{"n": {n}}}', "--workflow-id", "w", folder=tmp_path, variables=settings
        ).out.strip()
        for n in range(2)
    ]
    ended = hyperbus("tail", "a.*", "--history", "--count", "2", folder=tmp_path, variables=settings)
    shown = [json.loads(line) for line in ended.out.splitlines()]
    assert [(event["data"], event["workflow_id"], event["source_agent"]) for event in shown] == [
        ({"n": 0}, "w", "cli"),
        ({"n": 1}, "w", "cli"),
    ]
    stored = [entry_id.decode() for entry_id, _ in place.command("XRANGE", f"{prefix}:a.b", "-", "+")]
    assert stored == ids


def test_publish_reads_standard_input_and_prints_json(tmp_path, place):
    """`-` takes the data from a pipe, `--json` is for the next program in it."""
    settings = variables(place, tmp_path, f"pipe-{uuid.uuid4().hex[:8]}")
    ended = hyperbus("publish", "a.b", "-", "--json", folder=tmp_path, variables=settings, given='{"n": 1}')
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(r"\d+-\d+", json.loads(ended.out)["entry_id"])
