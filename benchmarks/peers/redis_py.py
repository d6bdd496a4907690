"""Plain redis-py: what its asyncio client does when nothing is built on it. Bodies are ready-made bytes, never decoded.

Pipelines without a transaction: https://redis.readthedocs.io/en/stable/advanced_features.html#pipelines and
https://redis.io/docs/latest/develop/clients/redis-py/transpipe/; hiredis for its parser, and a pool that waits while
all of its connections are in use: https://redis.readthedocs.io/en/stable/connections.html. No page asks for uvloop.
"""

from __future__ import annotations

import sys
from pathlib import Path

# This file's folder would hide packages behind files of the same name.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.peers.harness import BATCH, BODY, NAME, Countdown, Peer, by_batches, by_tasks, one_by_one, required

with required("redis-py"):
    from redis.asyncio import BlockingConnectionPool, Redis

FIELDS = {"data": BODY}

peer = Peer("redis-py", "redis", "hiredis")


def client(url: str, connections: int = 2) -> Redis:
    """Return a client of the server."""
    return Redis.from_pool(BlockingConnectionPool.from_url(url, max_connections=connections))


@peer.task
async def publish_one(url: str, count: int) -> float:
    """One awaited XADD after another."""
    async with client(url) as redis:
        await redis.ping()
        return await one_by_one(lambda: redis.xadd(NAME, FIELDS), count)


@peer.task
async def publish_tasks(url: str, count: int) -> float:
    """256 tasks, 64 connections: with 16 or 256 it is slower."""
    async with client(url, 64) as redis:
        await redis.ping()
        return await by_tasks(lambda: redis.xadd(NAME, FIELDS), count)


async def fill(redis: Redis, count: int) -> float:
    """Add events with pipelines; return the seconds."""

    async def publish(size: int) -> None:
        async with redis.pipeline(transaction=False) as pipe:
            for _ in range(size):
                pipe.xadd(NAME, FIELDS)
            await pipe.execute()

    await redis.ping()
    return await by_batches(publish, count)


@peer.task
async def publish_batch(url: str, count: int) -> float:
    """A pipeline of 500 XADDs."""
    async with client(url) as redis:
        return await fill(redis, count)


@peer.task
async def consume_one(url: str, count: int) -> float:
    """Reads and acks of 500, one awaited handler an event between them."""
    left = Countdown(count)

    async def handle(_body: bytes) -> None:
        left.handled()

    async with client(url) as redis:
        await fill(redis, count)
        await redis.xgroup_create(NAME, NAME, "0")
        left.start()
        for _ in range(0, count, BATCH):
            ((_, entries),) = await redis.xreadgroup(NAME, "c", {NAME: ">"}, count=BATCH)
            for _, fields in entries:
                await handle(fields[b"data"])
            await redis.xack(NAME, NAME, *[entry_id for entry_id, _ in entries])
        return await left.seconds()


# consume_64: a client of the server has no handlers, so none at the same time either.


@peer.task
async def consume_batch(url: str, count: int) -> float:
    """Reads and acks of 500, one awaited handler for all."""
    left = Countdown(count)

    async def handle(bodies: list[bytes]) -> None:
        left.handled(len(bodies))

    async with client(url) as redis:
        await fill(redis, count)
        await redis.xgroup_create(NAME, NAME, "0")
        left.start()
        for _ in range(0, count, BATCH):
            ((_, entries),) = await redis.xreadgroup(NAME, "c", {NAME: ">"}, count=BATCH)
            await handle([fields[b"data"] for _, fields in entries])
            await redis.xack(NAME, NAME, *[entry_id for entry_id, _ in entries])
        return await left.seconds()


if __name__ == "__main__":
    peer.main()
