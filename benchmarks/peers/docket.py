"""docket (pydocket): tasks on a stream, with a record of each.

As its documents have it for speed: records and results off
(https://docket.lol/en/latest/production/#fire-and-forget-mode), many tasks with `add_many`, and the shortest pause
between checks, which is also how long a worker with no free slot sleeps (`minimum_check_interval`:
https://docket.lol/en/latest/production/#core-settings). No page asks for uvloop.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

# This file's folder would hide packages behind files of the same name.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.peers.harness import EVENT, LANES, NAME, Countdown, Peer, by_batches, by_tasks, one_by_one, required

with required("docket"):
    from docket import Docket, Worker

logging.getLogger("docket").setLevel(logging.WARNING)

peer = Peer("docket", "pydocket", "redis", "hiredis")


def new_docket(url: str) -> Docket:
    """Return a docket on the server, with enough connections for all tasks."""
    return Docket(name=NAME, url=f"{url}?max_connections=300", execution_ttl=timedelta(0))


async def handle(event: dict[str, Any]) -> None:
    """Stand for the task where it is only added."""


@peer.task
async def publish_one(url: str, count: int) -> float:
    """One awaited `add` after another."""
    async with new_docket(url) as docket:
        docket.register(handle)
        return await one_by_one(lambda: docket.add(handle)(EVENT), count)


@peer.task
async def publish_tasks(url: str, count: int) -> float:
    """256 tasks, each awaiting its own `add`."""
    async with new_docket(url) as docket:
        docket.register(handle)
        return await by_tasks(lambda: docket.add(handle)(EVENT), count)


async def fill(docket: Docket, function: Any, count: int) -> float:
    """Add tasks 500 at a time; return the seconds."""

    async def publish(size: int) -> None:
        await docket.add_many([docket.call(function)(EVENT) for _ in range(size)])

    return await by_batches(publish, count)


@peer.task
async def publish_batch(url: str, count: int) -> float:
    """`add_many`, 500 at a time."""
    async with new_docket(url) as docket:
        docket.register(handle)
        return await fill(docket, handle, count)


async def _consume(url: str, count: int, concurrency: int) -> float:
    left = Countdown(count)

    async def handle(event: dict[str, Any]) -> None:  # noqa: ARG001 - what every handler is given
        left.handled()

    async with new_docket(url) as docket:
        docket.register(handle)
        await fill(docket, handle, count)
        pause = timedelta(milliseconds=1)  # less would be 0, which its read takes for no end
        async with Worker(docket, concurrency=concurrency, minimum_check_interval=pause) as worker:
            left.start()
            working = asyncio.create_task(worker.run_until_finished())
            seconds = await left.seconds()
            await working
            return seconds


@peer.task
async def consume_one(url: str, count: int) -> float:
    """One task at a time."""
    return await _consume(url, count, 1)


@peer.task
async def consume_64(url: str, count: int) -> float:
    """64 tasks at the same time."""
    return await _consume(url, count, LANES)


# consume_batch: a task is run by itself.


if __name__ == "__main__":
    peer.main()
