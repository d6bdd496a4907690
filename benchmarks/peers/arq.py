"""arq: jobs in a sorted set that its worker polls.

As its documents have it for speed (https://arq-docs.helpmanual.io/#arq.worker.Worker): no results kept, and no pause
between polls, with which a worker would do 2 x `max_jobs` jobs a second at most. No page asks for uvloop.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

# This file's folder would hide packages behind files of the same name.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(1, str(Path(sys.prefix, "arq")))  # a folder of its own: see requirements-arq.txt

from benchmarks.peers.harness import EVENT, LANES, NAME, Countdown, Peer, by_tasks, one_by_one, required

with required("arq"):
    from arq import create_pool, func
    from arq.connections import ArqRedis, RedisSettings
    from arq.worker import Worker

peer = Peer("arq", "arq", "redis", "hiredis")


async def new_pool(url: str) -> ArqRedis:
    """Connect to the server."""
    return await create_pool(RedisSettings.from_dsn(url), default_queue_name=NAME)


@peer.task
async def publish_one(url: str, count: int) -> float:
    """One awaited `enqueue_job` after another."""
    pool = await new_pool(url)
    seconds = await one_by_one(lambda: pool.enqueue_job("handle", EVENT), count)
    await pool.aclose()
    return seconds


@peer.task
async def publish_tasks(url: str, count: int) -> float:
    """256 tasks, each awaiting its own `enqueue_job`."""
    pool = await new_pool(url)
    seconds = await by_tasks(lambda: pool.enqueue_job("handle", EVENT), count)
    await pool.aclose()
    return seconds


# publish_batch: a job is enqueued by itself, there is no call for many.


async def _consume(url: str, count: int, concurrency: int) -> float:
    left = Countdown(count)

    async def handle(_context: dict[Any, Any], _event: dict[str, Any]) -> None:
        left.handled()

    pool = await new_pool(url)
    await by_tasks(lambda: pool.enqueue_job("handle", EVENT), count)
    worker = Worker(
        [func(handle, name="handle")],
        queue_name=NAME,
        redis_pool=pool,
        burst=True,
        handle_signals=False,
        max_jobs=concurrency,
        poll_delay=0,
        keep_result=0,
        log_results=False,
    )
    left.start()
    working = asyncio.create_task(worker.async_run())
    seconds = await left.seconds()
    await working
    await worker.close()
    return seconds


@peer.task
async def consume_one(url: str, count: int) -> float:
    """One job at a time."""
    return await _consume(url, count, 1)


@peer.task
async def consume_64(url: str, count: int) -> float:
    """64 jobs at the same time."""
    return await _consume(url, count, LANES)


# consume_batch: a job is run by itself.


if __name__ == "__main__":
    peer.main()
