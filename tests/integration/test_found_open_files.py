"""No open file is left in a worker process for a while: connections cannot be made, and all goes on afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import urllib.request
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from hyperbus import Bus, Event
from tests.commands import Running, wait_for, write_modules
from tests.servers import Server

pytestmark = pytest.mark.one_server

MODULE = """
import asyncio, os, resource
from pathlib import Path
from hyperbus import Consumer, Delivery, Event, consumer
from hyperbus.sinks.websocket import WebSocketBroadcaster

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
seen = open({seen!r}, "a", buffering=1)
here = Path({here!r})

@consumer(group="files_takers", types=["files.take"])
async def take(event: Event) -> None:
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        seen.write("taken\\n")
    while True:
        await asyncio.sleep(0.05)
        os.close(held.pop())  # to look
        given_back = (here / "give back").exists()
        if given_back:
            break
        held.append(os.dup(0))
    for file in held:
        os.close(file)
    seen.write("given\\n")

@consumer(group="files_writers", types=["files.*"], order_by="workflow_id")
async def write(event: Event) -> None:
    seen.write(event.data["name"] + "\\n")

@consumer(group="files_shown", types=["files.*"], audience="every_process", batch=500)
class Shown(Consumer):
    def __init__(self) -> None:
        self.broadcaster = WebSocketBroadcaster.from_settings()

    async def start(self) -> None:
        await self.broadcaster.start()

    async def handle(self, events: list[Event], deliveries: list[Delivery]) -> None:
        for event, delivery in zip(events, deliveries):
            self.broadcaster.broadcast_event(event, delivery.body)

    async def stop(self) -> None:
        await self.broadcaster.stop()
"""


async def test_readers_heartbeat_and_ports_come_back_when_there_are_files_again(server: Server, tmp_path: Path) -> None:
    """Every connection of the process was cut while it could make none. It lives, told why, and wrote no flood."""
    seen = tmp_path / "seen"
    write_modules(tmp_path, files=MODULE.format(seen=str(seen), here=str(tmp_path)))

    async def noted(name: str) -> None:
        await asyncio.to_thread(wait_for, lambda: name in seen.read_text().split(), lambda: running.err[-4000:])

    with Server(server.binary) as own:
        variables = {
            "HYPERBUS_URL": own.url, "HYPERBUS_HTTP_PORT": "0", "HYPERBUS_WEBSOCKET_PORT": "0",
            "HYPERBUS_LOG_FORMAT": "json",
        }  # fmt: skip
        with Running("run", "files", folder=tmp_path, variables=variables) as running:
            place = await asyncio.to_thread(running.wait_until_ready)
            workers = running.workers()
            async with Bus(own.url) as bus:
                await bus.publish(Event(type="files.other", data={"name": "before"}))
                await noted("before")
                await bus.publish(Event(type="files.take", data={"name": "take"}))
                await noted("taken")
            own.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(2.5)  # longer than a heartbeat lasts
            (tmp_path / "give back").touch()
            await noted("given")
            async with Bus(own.url) as bus, connect(place["websocket"], proxy=None, open_timeout=60) as client:
                await bus.publish(Event(type="files.other", data={"name": "after"}))
                await noted("after")
                async with asyncio.timeout(60):
                    while json.loads(await client.recv())["data"]["name"] != "after":
                        pass
            await asyncio.to_thread(wait_for, running.is_ready, lambda: running.err[-4000:])
            assert running.workers() == workers, running.err
            assert len(running.err.splitlines()) < 100, running.err
            assert await asyncio.to_thread(running.stop) == 0


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="another process's limit cannot be set")
def test_idle_connections_leave_a_supervisor_with_few_open_files_its_own(server: Server, tmp_path: Path) -> None:
    """`ulimit -n 64` and a hundred of them: it answers, starts a process anew, and writes no flood."""
    write_modules(
        tmp_path,
        few="from hyperbus import Event, consumer\n\n"
        '@consumer(group="files_few", types=["files.few"])\nasync def handle(event: Event) -> None: ...\n',
    )
    variables = {"HYPERBUS_URL": server.url, "HYPERBUS_HTTP_PORT": "0", "HYPERBUS_LOG_FORMAT": "json"}
    with Running("run", "few", folder=tmp_path, variables=variables) as running:
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (64, 64))
        place = running.wait_until_ready()
        port = int(place["metrics"].removesuffix("/metrics").rpartition(":")[2])
        idle = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(100)]
        try:
            wait_for(lambda: _answers(port), lambda: running.err[-4000:])
            (dead,) = running.workers()
            os.kill(dead, signal.SIGKILL)
            wait_for(lambda: dead not in running.workers() and running.is_ready(), lambda: running.err[-4000:])
        finally:
            for connection in idle:
                connection.close()
        assert "Too many open files" not in running.err
        assert len(running.err.splitlines()) < 30, running.err[-4000:]
        assert running.stop() == 0


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="another process's limit cannot be set")
def test_a_system_that_has_no_room_for_a_worker_process_is_asked_again(server: Server, tmp_path: Path) -> None:
    """A place stays empty, which is said once; the other process goes on, and the place is filled when there is room."""
    write_modules(
        tmp_path,
        room="from hyperbus import Event, consumer\n\n"
        '@consumer(group="files_room", types=["files.room"])\nasync def handle(event: Event) -> None: ...\n',
    )
    variables = {"HYPERBUS_URL": server.url, "HYPERBUS_HTTP_PORT": "0", "HYPERBUS_LOG_FORMAT": "json"}
    with Running("run", "room", "--processes", "2", folder=tmp_path, variables=variables) as running:
        running.wait_until_ready()
        dead, alive = running.workers()
        before = resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (4, before[1]))
        os.kill(dead, signal.SIGKILL)
        event = "a worker process is missing until there is room for it"
        wait_for(lambda: running.log(event) or running.process.poll() is not None, lambda: running.err[-4000:])
        assert running.process.poll() is None, running.err[-4000:]
        assert running.workers() == [alive]
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, before)
        wait_for(lambda: len(running.workers()) == 2 and running.is_ready(), lambda: running.err[-4000:])
        assert alive in running.workers()
        assert len(running.log(event)) == 1
        assert running.stop() == 0


def _answers(port: int) -> bool:
    """Ask whether it is well; who comes while all idle connections come may be cut off with them, and asks again."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
