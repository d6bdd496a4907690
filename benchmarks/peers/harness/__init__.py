"""What the scripts of all peers share: the event, the command line, the clock and the line of JSON.

Knows no peer and talks to no server.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: What the questions about hyperbus publish, in the envelope that goes over the wire.
EVENT: dict[str, Any] = {
    "id": "01a1fd0a-ed4d-7aa5-938e-c8868eeee058",
    "type": "bench.event",
    "workflow_id": "wf-000001",
    "timestamp": "2026-01-01T00:00:00.000000Z",
    "source_agent": "bench",
    "data": {"contract": "ERC20", "network": "testnet", "step": 7, "note": "x" * 40},
}
BODY = json.dumps(EVENT, separators=(",", ":")).encode()
#: What streams, queues and groups are called: nothing of an earlier run is read.
NAME = f"bench-{uuid.uuid4().hex[:8]}"
#: Events in one batch, written or read.
BATCH = 500
#: Tasks that publish at the same time.
PUBLISHERS = 256
#: Events handled at the same time by `consume_64`.
LANES = 64

Task = Callable[[str, int], Awaitable[float]]


@contextmanager
def required(peer: str) -> Iterator[None]:
    """Leave the peer out, with a message, if its packages cannot be imported."""
    try:
        yield
    except ImportError as error:
        print(f"{peer} is left out, it is not installed here: {error}", file=sys.stderr)
        if "--list" not in sys.argv:
            raise SystemExit(2) from None
        print("[]")
        raise SystemExit(0) from None


class Peer:
    """One peer's tasks by name, and the command line that runs one of them.

    Args:
        name: what the peer is called in the results.
        packages: the distributions whose versions are told, the peer's own first.
        uvloop: whether the peer's documents ask for uvloop.
    """

    def __init__(self, name: str, *packages: str, uvloop: bool = False) -> None:
        self.name = name
        self._packages = packages
        self._uvloop = uvloop
        self._tasks: dict[str, Task] = {}

    def task(self, function: Task) -> Task:
        """Register a task under the name of its function; it returns the seconds it took."""
        self._tasks[function.__name__] = function
        return function

    def main(self) -> None:
        """Run the task that the command line names, or list all."""
        parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
        parser.add_argument("task", nargs="?", choices=sorted(self._tasks))
        parser.add_argument("--list", action="store_true", help="print the tasks that the peer has")
        parser.add_argument("--url", default="redis://127.0.0.1:6379/0", help="a server to fill: keys are left behind")
        parser.add_argument("--count", type=int, default=10_000, help="events")
        parser.add_argument("--deadline", type=float, default=300.0, help="seconds after which to give up")
        parser.add_argument("--calm", action="store_true", help="run the garbage collector as rarely as hyperbus does")
        options = parser.parse_args()
        if options.list:
            print(json.dumps(list(self._tasks)))
            return
        if options.task is None or options.count < 1:
            parser.error("name a task and a count from 1, or ask for --list")
        if options.calm:  # as `calm_collector` of a worker process
            gc.collect()
            gc.freeze()
            gc.set_threshold(10_000, 20, 20)
        loop, factory = self._loop()
        with asyncio.Runner(loop_factory=factory) as runner:
            seconds = runner.run(self._run(options.task, options.url, options.count, options.deadline))
        measured = {"task": options.task, "count": options.count, "seconds": seconds, "loop": loop}
        print(json.dumps({**self._versions(), **measured}))

    async def _run(self, task: str, url: str, count: int, deadline: float) -> float:
        try:
            async with asyncio.timeout(deadline):
                return await self._tasks[task](url, count)
        except TimeoutError:
            raise SystemExit(f"{self.name}: {task} of {count} events was not done after {deadline:g} s") from None

    def _loop(self) -> tuple[str, Callable[[], asyncio.AbstractEventLoop] | None]:
        if self._uvloop:
            try:
                import uvloop
            except ImportError:
                return "asyncio", None
            return "uvloop", uvloop.new_event_loop
        return "asyncio", None

    def _versions(self) -> dict[str, Any]:
        versions = {package: importlib.metadata.version(package) for package in self._packages}
        return {"peer": self.name, "version": versions[self._packages[0]], "versions": versions}


class Countdown:
    """Counts handled events down and takes the time of the last."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._started = 0.0
        self._ended = 0.0
        self._done = asyncio.Event()

    def start(self) -> None:
        """Start the clock: reading begins."""
        self._started = time.perf_counter()

    def handled(self, events: int = 1) -> None:
        """Count events that a handler was given."""
        self._left -= events
        if self._left <= 0 and not self._done.is_set():
            self._ended = time.perf_counter()
            self._done.set()

    async def seconds(self) -> float:
        """Wait for the last event; return how long all took."""
        await self._done.wait()
        return self._ended - self._started


async def one_by_one(publish: Callable[[], Awaitable[Any]], count: int) -> float:
    """Await one publish after another; return the seconds."""
    started = time.perf_counter()
    for _ in range(count):
        await publish()
    return time.perf_counter() - started


async def by_tasks(publish: Callable[[], Awaitable[Any]], count: int) -> float:
    """Let 256 tasks each await their own publishes; return the seconds."""

    async def publisher(times: int) -> None:
        for _ in range(times):
            await publish()

    shares = [count // PUBLISHERS + (number < count % PUBLISHERS) for number in range(PUBLISHERS)]
    started = time.perf_counter()
    await asyncio.gather(*[publisher(share) for share in shares])
    return time.perf_counter() - started


async def by_batches(publish: Callable[[int], Awaitable[Any]], count: int, size: int = BATCH) -> float:
    """Await one batch after another; return the seconds."""
    started = time.perf_counter()
    for done in range(0, count, size):
        await publish(min(size, count - done))
    return time.perf_counter() - started
