"""Found by use: what a forked child does with what it inherited, and what its parent notices of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import DEADLINE, UNCOVERED, environment, wait_for
from tests.programs import run_program
from tests.servers import Server

pytestmark = pytest.mark.one_server

HEAD = """
import asyncio, concurrent.futures, multiprocessing, os, signal, subprocess, sys, time
from hyperbus import Bus, Event, EventData, HyperbusError, SyncPublisher, consumer

class Said(EventData, type="KIND"):
    by: str

signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts programs in the background ignores it
FORKING = multiprocessing.get_context("fork")

def end_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def forked(work):
    pid = os.fork()
    if pid:
        return end_of(pid)
    signal.alarm(20)  # what blocks for ever ends all the same
    try:
        work()
    except HyperbusError as error:
        print("refused:", error, flush=True)
    except BaseException as error:
        print("raised", repr(error), flush=True)
        os._exit(1)
    os._exit(0)

"""


def head(kind: str) -> str:
    return HEAD.replace("KIND", kind)


def said(server: Server, kind: str) -> list[str]:
    entries: Any = server.command("XRANGE", f"events:{kind}", "-", "+")
    bodies = [fields[b"data"] if isinstance(fields, dict) else fields[1] for _, fields in entries]
    return [body.decode().partition('"by":"')[2].partition('"')[0] for body in bodies]


IN_CHILD = {
    "fork": "forked(publish)",
    "multiprocessing": "joined(FORKING.Process(target=publish))",
    "pool": "concurrent.futures.ProcessPoolExecutor(1, mp_context=FORKING).submit(publish).result(20) or 0",
}


@pytest.mark.parametrize("how", IN_CHILD)
def test_an_open_sync_publisher_works_in_a_forked_child(server: Server, tmp_path: Path, how: str) -> None:
    """The child publishes at once and not never, and the parent's publisher goes on."""
    kind = f"found.forked_{how}"
    ended = run_program(
        tmp_path,
        f"""
def publish():
    publisher.publish(Said("child"), timeout=10)

def joined(process):
    process.start()
    process.join(20)
    return process.exitcode

with SyncPublisher() as publisher:
    publisher.publish(Said("parent"))
    code = {IN_CHILD[how]}
    publisher.publish(Said("parent again"))
assert code == 0, code
""",
        head=head(kind),
        variables={"HYPERBUS_URL": server.url, **UNCOVERED},
    )
    assert ended.code == 0, ended
    assert said(server, kind) == ["parent", "child", "parent again"]


def test_a_bus_is_refused_in_a_forked_child_and_the_parent_is_unharmed(server: Server, tmp_path: Path) -> None:
    """Publishing, closing, and ending as any program does: the parent keeps its connections, and its worker works."""
    kind = "found.forked_bus"
    ended = run_program(
        tmp_path,
        """
seen, forks = [], []

@consumer(group="g")
async def hears(event: Event[Said]) -> None:
    seen.append(event.data.by)
    if event.data.by != "parent":
        return
    for work in (
        lambda: asyncio.run(bus.publish(Said("child"))),
        lambda: asyncio.run(bus.publish_many([Said("child")])),
        lambda: asyncio.run(bus.__aexit__(None, None, None)),
        lambda: asyncio.run(leave()),
    ):
        forks.append(forked(work))

async def leave():
    async with bus.running(hears):
        pass

async def main():
    global bus
    async with Bus() as bus:
        async with bus.running(hears):
            await bus.publish(Said("parent"))
            before = connections()
            while len(forks) < 4:
                await asyncio.sleep(0.01)
            assert FORKING.Process(target=lambda: sys.exit(0)).start() is None
            await bus.publish(Said("parent again"))
            while len(seen) < 2:
                await asyncio.sleep(0.01)
            assert connections() == before, (before, connections())
    assert forks == [0] * 4, forks
    assert seen == ["parent", "parent again"]

def connections():
    import redis
    client = redis.Redis.from_url(os.environ["HYPERBUS_URL"], client_name="looks")
    listed = client.client_list()
    client.close()
    return sorted(each["id"] for each in listed if each["name"] != "looks" and "lib-name" in each)

asyncio.run(main())
""",
        head=head(kind),
        variables={"HYPERBUS_URL": server.url, **UNCOVERED},
    )
    assert ended.code == 0, ended
    assert ended.out.count("refused:") >= 2, ended
    assert said(server, kind) == ["parent", "parent again"]


def test_a_child_that_lives_on_holds_nothing_of_its_parents(tmp_path: Path) -> None:
    """The embedded server ends with its last user; a child that was forked meanwhile is none."""
    ended = run_program(
        tmp_path,
        """
def processes():
    folder = os.path.abspath("data")
    return [words for words in map(words_of, filter(str.isdigit, os.listdir("/proc"))) if folder in words]

def words_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().split("\\0")
    except OSError:
        return []

with SyncPublisher("embedded://data") as publisher:
    publisher.publish(Said("parent"))
    child = FORKING.Process(target=time.sleep, args=(60,))
    child.start()
    assert processes()
ends = time.monotonic() + 20
while processes() and time.monotonic() < ends:
    time.sleep(0.02)
left = processes()
lives = child.is_alive()
child.kill()
assert lives and not left, left
""",
        head=head("found.forked_embedded"),
    )
    assert ended.code == 0, ended


def test_connections_end_with_the_parent_though_a_child_lives(server: Server, tmp_path: Path) -> None:
    """Else the server would go on handing entries to a worker that is dead, by a socket that its child keeps open."""
    program = tmp_path / "program.py"
    program.write_text(
        head("found.forked_orphan")
        + """
@consumer(group="g")
async def hears(event: Event[Said]) -> None: ...

async def main():
    async with Bus() as bus, bus.running(hears):
        child = FORKING.Process(target=time.sleep, args=(600,))
        child.start()
        print(child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    )
    before = clients(server)
    with (tmp_path / "out").open("w") as out:  # no pipe: the child would hold it open
        subprocess.run(
            [sys.executable, str(program)], cwd=tmp_path, env=environment(HYPERBUS_URL=server.url, **UNCOVERED), stdout=out,
            timeout=DEADLINE, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    child = int((tmp_path / "out").read_text())
    try:
        wait_for(lambda: clients(server) <= before, lambda: f"still connected: {clients(server) - before}", deadline=30)
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def clients(server: Server) -> set[str]:
    """Return which connections there are, besides those that ask."""
    listed: Any = server.command("CLIENT", "LIST")
    lines = listed.decode().splitlines() if isinstance(listed, bytes) else listed.splitlines()
    return {line.partition(" ")[0] for line in lines if "cmd=client|list" not in line}


ENDS_CHILDREN = """
def waits():
    time.sleep(60)

def start_and_end():
    process = FORKING.Process(target=waits)
    process.start()
    process.terminate()
    process.join(20)
    return process.exitcode

def fork_and_kill(number):
    parent = os.getpid()
    try:
        pid = os.fork()
        if not pid:
            time.sleep(60)
    except KeyboardInterrupt:
        os._exit(9 if os.getpid() != parent else 1)
    finally:
        if os.getpid() != parent:
            os._exit(1)
    os.kill(pid, number)
    return end_of(pid)

def all_ends():
    ends = [start_and_end() for _ in range(5)]
    ends += [fork_and_kill(signal.SIGTERM)]
    assert fork_and_kill(signal.SIGINT) in (9, -2)  # a KeyboardInterrupt, or before there was anybody to see one
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started.terminate()
    ends.append(started.wait(20))
    with FORKING.Pool(1) as pool:
        pool.apply(os.getpid)
    return ends
"""
EXPECTED = [-15] * 7


@pytest.mark.parametrize("how", ["async def", "def"])
def test_a_child_that_a_handler_starts_dies_of_sigterm_and_its_parent_does_not(
    server: Server, tmp_path: Path, how: str
) -> None:
    """Under `bus.run`, on the event loop and in a thread: what was sent to the child stops the child alone."""
    kind = f"found.forked_signals_{how.replace(' ', '_')}"
    ended = run_program(
        tmp_path,
        ENDS_CHILDREN
        + f"""
seen = []

@consumer(group="g")
{how} hears(event: Event[Said]) -> None:
    seen.append(all_ends() if event.data.by == "first" else event.data.by)
    if event.data.by == "second":
        os.kill(os.getpid(), signal.SIGTERM)

async def main():
    async with Bus() as bus:
        running = asyncio.create_task(bus.run(hears))
        await bus.publish(Said("first"))
        while not seen and not running.done():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        assert not running.done(), "the parent took the child's signal for its own"
        await bus.publish(Said("second"))
        await running
    print(seen)

asyncio.run(main())
""",
        head=head(kind),
        variables={"HYPERBUS_URL": server.url, **UNCOVERED},
    )
    assert ended.code == 0, ended
    assert ended.out.splitlines()[-1] == str([EXPECTED, "second"]), ended


@pytest.mark.parametrize("how", ["async def", "def"])
def test_a_child_that_comes_back_from_its_handler_ends(server: Server, tmp_path: Path, how: str) -> None:
    """It would go on as a second parent, with its connections; the parent does not notice."""
    kind = f"found.forked_back_{how.replace(' ', '_')}"
    ended = run_program(
        tmp_path,
        f"""
seen, codes = [], []

@consumer(group="g")
{how} hears(event: Event[Said]) -> None:
    seen.append(event.data.by)
    if event.data.by == "last":
        return
    pid = os.fork()
    if pid:
        codes.append(end_of(pid))
        return
    signal.alarm(20)
    if event.data.by == "exits":
        sys.exit(3)
    if event.data.by == "raises":
        raise ValueError

async def main():
    async with Bus() as bus:
        async with bus.running(hears):
            for by in ("returns", "exits", "raises", "last"):
                await bus.publish(Said(by))
                while by not in seen:
                    await asyncio.sleep(0.01)
        pid = os.fork()
        if not pid:
            sys.exit(3)
        codes.append(end_of(pid))
        await bus.publish(Said("after all"))
    assert len(codes) == 4 and -signal.SIGALRM not in codes and codes[3] == 3, codes
    print(seen)

asyncio.run(main())
""",
        head=head(kind),
        variables={"HYPERBUS_URL": server.url, **UNCOVERED},
    )
    assert ended.code == 0, ended
    assert ended.out.splitlines()[-1] == str(["returns", "exits", "raises", "last"]), ended
    assert said(server, kind) == ["returns", "exits", "raises", "last", "after all"]
