"""The world that is broken: a server, the proxy before it, supervisors with their workers, producers. Owns them all."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import redis

from tests.chaos.by_hand import PUBLISH, written
from tests.chaos.dump import MOST_WAITING, dump, last_ids, letters, waiting
from tests.chaos.features import EVERY_GROUP
from tests.chaos.history import History
from tests.chaos.proxy import Proxy
from tests.commands import Running, environment
from tests.servers import Server

PREFIX = "events"
TYPES = ("chaos.alpha", "chaos.beta", "chaos.gamma")
TTL = 1.5
#: Whom workers and producers log in as. Its rights are taken away, never those of who gives them back.
USER, PASSWORD = "chaos", "chaos"
#: What a worker process may hold before it is replaced, where there is such a limit.
MAX_RSS = 150 * 1024 * 1024
#: How long a supervisor may take to be ready, and children to end that have lost theirs.
START = 40.0
CHILDREN_END = 20.0


class World:
    """Everything that runs, by process id.

    Args:
        folder: where histories and logs go.
        binary: the server program.
        seed: of producers.
        rate: events a second, of all producers together.
        supervisors, processes: how many supervisors, and processes of each.
        plant: a module that plants a bug in workers and producers.
        variables: more environment of the workers.
    """

    def __init__(
        self,
        folder: Path,
        binary: str,
        *,
        seed: str,
        rate: float,
        supervisors: int = 2,
        processes: int = 2,
        producers: int = 2,
        plant: str = "",
        variables: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.server = Server(
            binary,
            appendonly=True,
            arguments=[
                *("--appendfsync", "always", "--maxmemory-policy", "noeviction"),
                *("--user", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all"),
            ],
        )
        self.proxy = Proxy(self.server.port)
        self.faults = History(folder / "faults.jsonl")
        self.counts: Counter[str] = Counter()
        #: When the last fault of each kind had ended, by time.monotonic().
        self.ended: dict[str, float] = {}
        self.by_hand = History(folder / "published-chaos.jsonl")
        self.random = random.Random(f"{seed} world")
        self._seed, self._rate, self._plant = seed, rate, plant
        self._counts = (supervisors, processes, producers)
        self._variables = variables or {}
        self.supervisors: list[Running | None] = []
        self._producers: list[subprocess.Popen[bytes]] = []
        self._marks = History(folder / "marks.jsonl")
        self._samples = History(folder / "samples.jsonl")
        self._tasks: list[asyncio.Task[None]] = []
        self._ready: set[int] = set()
        self._stopping = False
        self._born: list[str] = []

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.server.start)
        await self.proxy.__aenter__()
        count, _, producers = self._counts
        self.supervisors = [None] * count
        await asyncio.gather(*(self.start_supervisor(index) for index in range(count)))
        for number in range(producers):
            self._start_producer(f"producer{number}")
        self._tasks = [asyncio.create_task(self._sample()), asyncio.create_task(self._guard())]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for producer in self._producers:
            producer.kill()
            producer.wait()
        children = self.workers()
        for running in self.supervisors:
            if running is not None:
                running.__exit__()
        for pid in children:  # stopped ones would never notice that their supervisor is gone
            kill(pid, signal.SIGKILL)
        await self.proxy.__aexit__()
        await asyncio.to_thread(self.server.remove)

    # -- workers

    @property
    def url(self) -> str:
        """Where workers and producers connect: at the proxy."""
        return f"redis://{USER}:{PASSWORD}@127.0.0.1:{self.proxy.port}/0"

    async def start_supervisor(self, index: int) -> None:
        """Start a supervisor in a slot, and wait until its workers are ready."""
        running = Running(
            "run", "tests.chaos.consumers", "--processes", str(self._counts[1]), folder=self.folder,
            variables=self._worker_variables(),
        )  # fmt: skip
        self.supervisors[index] = running
        await asyncio.to_thread(self._wait_until_ready, running)
        self._ready.add(running.process.pid)

    def _worker_variables(self) -> dict[str, str]:
        return {
            "HYPERBUS_URL": self.url,
            "HYPERBUS_PREFIX": PREFIX,
            "HYPERBUS_HTTP_PORT": "0",
            "HYPERBUS_HEARTBEAT_TTL": str(TTL),
            "HYPERBUS_SCAN_INTERVAL": "2",
            "HYPERBUS_RETAIN_AGE": "20",
            "HYPERBUS_MAX_RSS": str(MAX_RSS),
            "HYPERBUS_DATABASE_URL": f"sqlite:///{self.folder / 'events.db'}",
            "CHAOS_FOLDER": str(self.folder),
            "CHAOS_PLANT": self._plant,
            **self._variables,
        }

    def _wait_until_ready(self, running: Running) -> None:
        deadline = time.monotonic() + START
        while not running.is_ready():
            if running.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"a supervisor is not ready: {running.err[-3000:]}")
            time.sleep(0.1)

    def children(self, running: Running) -> list[int]:
        """Return the worker processes of a supervisor; [] once it has ended."""
        with suppress(OSError):
            return running.workers()
        return []

    def workers(self) -> list[int]:
        """Return every worker process of a ready supervisor."""
        return [pid for one in self.ready_supervisors() for pid in self.children(one)]

    def ready_supervisors(self) -> list[Running]:
        """Return the supervisors whose workers can be harmed: one that is starting would rightly give up."""
        return [one for one in self.supervisors if one is not None and one.process.pid in self._ready]

    async def kill_supervisor(self, owner_of: int | None = None) -> list[int]:
        """End a supervisor as a crash does, start another; return its children that did not end by themselves.

        Given one of its children, that supervisor is taken, and its children are killed with it, as when a host dies.
        """
        there = [i for i, one in enumerate(self.supervisors) if one is not None]
        owners = [i for i in there if owner_of in self.children(self._at(i))]
        index = self.random.choice(owners or there)
        running = self._at(index)
        children = self.children(running)
        self.supervisors[index] = None
        for pid in (running.process.pid, *(children if owner_of is not None else ())):
            kill(pid, signal.SIGKILL)
        running.process.wait()
        await self.start_supervisor(index)
        left = children
        with suppress(TimeoutError):
            async with asyncio.timeout(CHILDREN_END):
                while left := [pid for pid in left if is_there(pid)]:
                    await asyncio.sleep(0.1)
        for pid in left:
            kill(pid, signal.SIGKILL)
        return left

    def _at(self, index: int) -> Running:
        running = self.supervisors[index]
        assert running is not None
        return running

    async def _guard(self) -> None:
        """Start a supervisor again that ended by itself, and write that down: it should not have."""
        while True:
            await asyncio.sleep(0.5)
            for index, running in enumerate(self.supervisors):
                if running is not None and running.process.poll() is not None and running.process.pid in self._ready:
                    told = running.err.splitlines()[-1:]
                    self.fault("supervisor_ended", time.time(), code=running.process.poll(), said=told)
                    self.supervisors[index] = None
                    with suppress(RuntimeError):
                        await self.start_supervisor(index)

    async def stop_supervisors(self) -> list[int | None]:
        """Let every supervisor drain and end; return their exit codes."""
        self._tasks[1].cancel()
        running = [one for one in self.supervisors if one is not None]
        for one in running:
            one.process.send_signal(signal.SIGTERM)
        codes: list[int | None] = []
        for one in running:
            try:
                codes.append(await asyncio.to_thread(one.process.wait, 40))
            except subprocess.TimeoutExpired:
                codes.append(None)
        return codes

    def deaths(self) -> list[str]:
        """Return why worker processes died that nobody told to end, as their supervisors saw it."""
        lines = [line for path in self.folder.glob("stderr-*") for line in path.read_text().splitlines()]
        return [json.loads(line)["reason"] for line in lines if '"worker process died"' in line]

    # -- producers

    def _start_producer(self, name: str) -> None:
        words = [sys.executable, "-m", "tests.chaos.producer", str(self.folder), name, self._seed]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._producers.append(
                subprocess.Popen(
                    [*words, str(self._rate / max(1, self._counts[2]))], cwd=self.folder, stdout=log, stderr=log,
                    stdin=subprocess.DEVNULL,
                    env=environment(HYPERBUS_URL=self.url, HYPERBUS_PREFIX=PREFIX, CHAOS_PLANT=self._plant),
                )
            )  # fmt: skip

    async def stop_producers(self) -> list[int | None]:
        """Let producers finish what is under way; return their exit codes."""
        for producer in self._producers:
            producer.send_signal(signal.SIGTERM)
        codes = [await asyncio.to_thread(_end_of, producer) for producer in self._producers]
        self._producers.clear()
        return codes

    @property
    def streams(self) -> list[str]:
        """Every stream that is published into."""
        return [f"{PREFIX}:{name}" for name in (*TYPES, *self._born)]

    def new_type(self) -> str:
        """Return a type that nobody has published before."""
        self._born.append(f"chaos.born{len(self._born)}")
        return self._born[-1]

    async def publish_by_hand(
        self,
        event_type: str = "",
        *,
        timestamp: str = "2026-01-01T00:00:00Z",
        taken_by: tuple[str, bytes] | None = None,
        **data: Any,
    ) -> str:
        """Publish as any other program would, past the proxy; return the event's id.

        `taken_by`: the group and the consumer that is given it in the same step.
        """
        event_type = event_type or self.random.choice(TYPES)
        event_id = str(uuid.UUID(int=self.random.getrandbits(128)))
        data = {"key": f"chaos-{event_id}", "seq": 1, "poison": "", **data}
        line = {"id": event_id, "type": event_type, "once": False}
        self.by_hand.add({"e": "call", "t": time.time(), **line, **{k: data[k] for k in ("key", "seq", "poison")}})
        envelope: dict[str, Any] = {"id": event_id, "type": event_type, "timestamp": timestamp}
        fields = written({**envelope, "workflow_id": data["key"], "data": data}, data["poison"])
        stream = f"{PREFIX}:{event_type}"
        if taken_by is None:
            entry = await self.command("XADD", stream, "*", *fields)
        else:
            entry, taken = await self.command("EVAL", PUBLISH, 1, stream, *taken_by, taken_by[0], *fields)
            self.counts["taken"] += taken
        self.by_hand.add({"e": "stored", "t": time.time(), "id": event_id, "entry": entry.decode()})
        return event_id

    async def stalled(self, event_id: str, seconds: float = 10.0) -> int | None:
        """Wait until a handler stalls on an event; return its process."""
        return self.has_stalled(event_id) if await until(lambda: self.has_stalled(event_id), seconds) else None

    def has_stalled(self, event_id: str) -> int | None:
        """Return the process in which a handler has stalled on an event."""
        return next((int(p.name.rpartition("-")[2]) for p in self.folder.glob(f"stalled-{event_id}-*")), None)

    # -- all of it

    async def command(self, *words: str | bytes | float) -> Any:
        """Ask the server itself, past the proxy."""
        return await asyncio.to_thread(self.server.command, *words)

    async def mark(self, seconds: float = 8.0) -> None:
        """Before the server is told to forget: wait until what is published by now is done, and write down when that was.

        What was acknowledged before a mark is not excused by what comes after it, but for what takes long and still
        waits there. Dead letters are written down too.
        """
        now, streams = time.time(), self.streams
        command = self.server.command
        ids = await asyncio.to_thread(last_ids, command, streams)
        deadline = time.monotonic() + seconds
        while (left := await self._waiting(ids)) is None or (left and time.monotonic() < deadline):
            if time.monotonic() > deadline:
                return  # then more is excused
            await asyncio.sleep(0.1)
        if len(left) < MOST_WAITING:
            found = await asyncio.to_thread(dump, command, streams, EVERY_GROUP)
            self._marks.add({"t": now, "letters": letters(found), "waiting": left})

    async def calm(self, seconds: float) -> None:
        """Wait until the backlog of now is done, but for a little; at most for so long."""
        ids = await asyncio.to_thread(last_ids, self.server.command, self.streams)
        deadline = time.monotonic() + seconds
        while (left := await self._waiting(ids)) is None or len(left) >= MOST_WAITING:
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.1)

    async def _waiting(self, ids: dict[str, str]) -> list[str] | None:
        try:
            return await asyncio.to_thread(waiting, self.server.command, ids, EVERY_GROUP)
        except redis.ResponseError:
            return None  # a group is missing just now

    def fault(self, kind: str, begin: float, **more: Any) -> None:
        """Write down a fault that has ended now."""
        self.counts[kind] += 1
        self.ended[kind] = time.monotonic()
        self.faults.add({"kind": kind, "begin": begin, "end": time.time(), **more})

    async def _sample(self) -> None:
        """Write down each second how much memory everybody takes."""
        while True:
            await asyncio.sleep(1.0)
            rss = {str(pid): rss_of(pid) for pid in self.workers()}
            line: dict[str, Any] = {"t": time.time(), "rss": rss, "used": None}
            with suppress(Exception):  # the server may be down just now
                info = await self.command("INFO", "memory")
                line["used"] = info["used_memory"]
            self._samples.add(line)


def rss_of(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 once it has ended."""
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def kill(pid: int, number: signal.Signals) -> bool:
    """Send a signal; tell whether there was anybody."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def is_there(pid: int) -> bool:
    """Tell whether a process runs; a zombie that nobody waited for does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def until(look: Callable[[], object], seconds: float) -> bool:
    """Look until there is something; tell whether there was, in time."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


def _end_of(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None
