"""FastStream on Redis Streams, typed events, one by one and in batches.

As its documents have it for speed: msgspec in place of pydantic
(https://faststream.ag2.ai/latest/getting-started/subscription/msgspec/), pipelines for many
(https://faststream.ag2.ai/latest/redis/pipeline/), `max_workers` for handlers at the same time
(https://faststream.ag2.ai/latest/getting-started/subscription/concurrency/), uvloop as its command line takes it when
it is there (https://faststream.ag2.ai/latest/getting-started/cli/#event-loop), no logger as in its own benchmarks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
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

with required("FastStream"):
    import msgspec
    from fast_depends.msgspec import MsgSpecSerializer
    from faststream.redis import RedisBroker, StreamSub

peer = Peer("FastStream", "faststream", "redis", "msgspec", uvloop=True)


class Data(msgspec.Struct):
    """The data of an event."""

    contract: str
    network: str
    step: int
    note: str


class Envelope(msgspec.Struct):
    """An event."""

    id: str
    type: str
    workflow_id: str
    timestamp: str
    source_agent: str
    data: Data


MESSAGE = msgspec.convert(EVENT, Envelope)


def new_broker(url: str, connections: int = 8) -> RedisBroker:
    """Return a broker on the server."""
    return RedisBroker(url, logger=None, serializer=MsgSpecSerializer(), max_connections=connections)


@peer.task
async def publish_one(url: str, count: int) -> float:
    """One awaited `publish` after another."""
    async with new_broker(url) as broker:
        await broker.ping()
        return await one_by_one(lambda: broker.publish(MESSAGE, stream=NAME), count)


@peer.task
async def publish_tasks(url: str, count: int) -> float:
    """256 tasks, each awaiting its own `publish`; its pool does not wait, so there is a connection for each."""
    async with new_broker(url, 300) as broker:
        await broker.ping()
        return await by_tasks(lambda: broker.publish(MESSAGE, stream=NAME), count)


async def fill(broker: RedisBroker, count: int) -> float:
    """Publish events with pipelines; return the seconds."""
    redis = await broker.connect()

    async def publish(size: int) -> None:
        async with redis.pipeline() as pipe:
            for _ in range(size):
                await broker.publish(MESSAGE, stream=NAME, pipeline=pipe)
            await pipe.execute()

    await broker.ping()
    return await by_batches(publish, count)


@peer.task
async def publish_batch(url: str, count: int) -> float:
    """`publish` into a pipeline of 500: `publish_batch` is for lists only."""
    async with new_broker(url) as broker:
        return await fill(broker, count)


async def _consume(url: str, count: int, handler: Callable[[Countdown], Any], batch: bool, **options: int) -> float:
    left = Countdown(count)
    async with new_broker(url, LANES + 8) as broker:
        # A group of its own starts at the end of the stream: it is made before the stream is filled.
        redis = await broker.connect()
        await redis.xgroup_create(NAME, NAME, "$", mkstream=True)
        await fill(broker, count)
        stream = StreamSub(NAME, group=NAME, consumer="c", batch=batch, max_records=BATCH)
        broker.subscriber(stream=stream, **options)(handler(left))
        left.start()
        await broker.start()
        return await left.seconds()


def _one(left: Countdown) -> Any:
    async def handle(_event: Envelope) -> None:
        left.handled()

    return handle


def _many(left: Countdown) -> Any:
    async def handle(events: list[Envelope]) -> None:
        left.handled(len(events))

    return handle


@peer.task
async def consume_one(url: str, count: int) -> float:
    """One handler an event."""
    return await _consume(url, count, _one, batch=False)


@peer.task
async def consume_64(url: str, count: int) -> float:
    """64 handlers at the same time."""
    return await _consume(url, count, _one, batch=False, max_workers=LANES)


@peer.task
async def consume_batch(url: str, count: int) -> float:
    """A handler of up to 500 events."""
    return await _consume(url, count, _many, batch=True)


if __name__ == "__main__":
    peer.main()
