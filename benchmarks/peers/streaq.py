"""streaQ: tasks on a stream, on the coredis client.

As its documents have it for speed: coredis without its run-time checks, uvloop
(https://streaq.readthedocs.io/en/latest/worker.html#worker-optimization), `enqueue_many` for many
(https://streaq.readthedocs.io/en/latest/task.html), prefetching, no results and no log lines.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

# This file's folder would hide packages behind files of the same name.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.peers.harness import (
    BATCH,
    EVENT,
    LANES,
    NAME,
    Countdown,
    Peer,
    by_batches,
    by_tasks,
    one_by_one,
    required,
)

with required("streaQ"):
    import coredis
    from streaq import Worker

    coredis.Config.optimized = True

peer = Peer("streaQ", "streaq", "coredis", uvloop=True)


class Queue:
    """A worker with one task that does nothing."""

    def __init__(self, url: str, count: int, concurrency: int = 1) -> None:
        self.left = Countdown(count)
        self.count = count
        self.worker: Any = Worker(url, queue_name=NAME, concurrency=concurrency, prefetch=BATCH, handle_signals=False)
        self.worker.burst = True
        self.handle = self.worker.task(name="handle", silent=True, ttl=0)(self._handle)

    async def _handle(self, event: dict[str, Any]) -> None:  # noqa: ARG002 - what every handler is given
        self.left.handled()

    async def publish(self) -> None:
        """Enqueue one task."""
        await self.handle.enqueue(EVENT)

    async def publish_many(self, size: int) -> None:
        """Enqueue many."""
        await self.worker.enqueue_many([self.handle.enqueue(EVENT) for _ in range(size)])


@peer.task
async def publish_one(url: str, count: int) -> float:
    """One awaited `enqueue` after another."""
    queue = Queue(url, count)
    async with queue.worker:
        return await one_by_one(queue.publish, count)


@peer.task
async def publish_tasks(url: str, count: int) -> float:
    """256 tasks, each awaiting its own `enqueue`."""
    queue = Queue(url, count)
    async with queue.worker:
        return await by_tasks(queue.publish, count)


@peer.task
async def publish_batch(url: str, count: int) -> float:
    """`enqueue_many`, 500 at a time."""
    queue = Queue(url, count)
    async with queue.worker:
        return await by_batches(queue.publish_many, count)


async def _consume(url: str, count: int, concurrency: int) -> float:
    await publish_batch(url, count)
    queue = Queue(url, count, concurrency)
    queue.left.start()
    working = asyncio.create_task(queue.worker.run_async())
    seconds = await queue.left.seconds()
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
