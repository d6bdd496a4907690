"""A server that cannot serve while worker processes die: those that follow wait for it, and that is no crash loop."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperbus import Bus, Event
from tests.commands import Running, wait_for, write_modules
from tests.servers import Server

pytestmark = pytest.mark.one_server

MODULE = """
from pathlib import Path
from hyperbus import Event, consumer

@consumer(group="restarts", types=["restarts.seen"])
async def handler(event: Event) -> None:
    with Path({seen!r}).open("a") as file:
        file.write(event.data["name"] + "\\n")
"""


def fail_to_save(server: Server) -> None:
    server.command("CONFIG", "SET", "save", "3600 100000")
    shutil.rmtree(server.folder)  # where it would be saved
    server.command("BGSAVE")
    wait_for(lambda: server.command("INFO", "persistence")["rdb_last_bgsave_status"] == "err")


#: How a server is made unable to serve, and able again.
REFUSALS: dict[str, tuple[Callable[[Server], object], Callable[[Server], object]]] = {
    "MISCONF": (fail_to_save, lambda server: server.command("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")),
    "NOPERM": (
        lambda server: server.command("ACL", "SETUSER", "default", "-@all", "+acl"),
        lambda server: server.command("ACL", "SETUSER", "default", "+@all"),
    ),
}


def test_worker_processes_that_follow_a_dead_one_wait_for_a_server_that_refuses(server: Server, tmp_path: Path) -> None:
    """With whatever word: one dies, the next one waits, the other stays; afterwards both serve. Nothing else has died."""
    seen = tmp_path / "seen"
    write_modules(tmp_path, restarts=MODULE.format(seen=str(seen)))
    with Server(server.binary) as own:
        variables = {"HYPERBUS_URL": own.url, "HYPERBUS_HTTP_PORT": "0", "HYPERBUS_LOG_FORMAT": "json"}
        with Running("run", "restarts", "--processes", "2", folder=tmp_path, variables=variables) as running:
            begun = time.monotonic()
            running.wait_until_ready()
            start = time.monotonic() - begun  # a process that lives for so long meanwhile will not die of it
            for deaths, (word, (refuse, serve)) in enumerate(REFUSALS.items(), 1):
                dead, alive = running.workers()
                refuse(own)
                os.kill(dead, signal.SIGKILL)
                following = the_next(running, dead, alive, lives=start)
                serve(own)
                wait_for(running.is_ready)
                asyncio.run(publish(own.url, word))
                wait_for(lambda name=word: seen.exists() and name in seen.read_text().split())
                assert sorted(running.workers()) == sorted([alive, following]), word
                assert len(running.log("worker process died")) == deaths, word
            assert running.stop() == 0


def the_next(running: Running, dead: int, alive: int, *, lives: float) -> int:
    """Return the process that follows a dead one, once it has lived for a while."""
    following, since = 0, time.monotonic()

    def has_lived() -> bool:
        nonlocal following, since
        assert running.process.poll() is None, running.err
        found = next((pid for pid in running.workers() if pid not in (dead, alive)), 0)
        if found != following:
            following, since = found, time.monotonic()
        return following != 0 and time.monotonic() - since > lives

    wait_for(has_lived, lambda: running.err)
    return following


async def publish(url: str, name: str) -> None:
    async with Bus(url) as bus:
        await bus.publish(Event(type="restarts.seen", data={"name": name}))
