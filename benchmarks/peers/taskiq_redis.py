"""taskiq with the stream broker of taskiq-redis, the one of its brokers that acknowledges.

As its documents have it for speed: ORJSONSerializer (https://taskiq-python.github.io/guide/message-format.html),
uvloop as its worker takes it when it is there (https://taskiq-python.github.io/guide/architecture-overview.html),
prefetching and no casting of arguments (`--max-prefetch`, `--no-parse`:
https://taskiq-python.github.io/guide/cli.html), no results.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

# This file's folder would hide packages behind files of the same name.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.peers.harness import BATCH, EVENT, LANES, NAME, Countdown, Peer, by_tasks, one_by_one, required

with required("taskiq-redis"):
    import orjson  # noqa: F401 - the serializer imports it late
    from taskiq.receiver import Receiver
    from taskiq.serializers import ORJSONSerializer
    from taskiq_redis import RedisStreamBroker

peer = Peer("taskiq-redis", "taskiq-redis", "taskiq", "redis", "orjson", uvloop=True)


class Queue:
    """A broker with one task that does nothing. Its pool waits: more connections than 16 make publishing slower."""

    def __init__(self, url: str, count: int, connections: int = 16) -> None:
        self.left = Countdown(count)
        self.count = count
        stream = RedisStreamBroker(
            url,
            queue_name=NAME,
            consumer_group_name=NAME,
            xread_count=BATCH,
            max_connection_pool_size=connections,
        )
        self.broker = stream.with_serializer(ORJSONSerializer())

        async def handle(event: dict[str, Any]) -> None:  # noqa: ARG001 - what every handler is given
            self.left.handled()

        self.handle = self.broker.register_task(handle, task_name="handle")

    async def publish(self) -> None:
        """Send one task."""
        await self.handle.kiq(EVENT)

    async def consume(self, concurrency: int) -> float:
        """Send the tasks, then work on them; return the seconds of the work."""
        await self.broker.startup()
        await by_tasks(self.publish, self.count)
        self.broker.is_worker_process = True
        receiver = Receiver(
            self.broker, validate_params=False, max_async_tasks=concurrency, max_prefetch=BATCH, run_startup=False
        )
        finish = asyncio.Event()
        self.left.start()
        listening = asyncio.create_task(receiver.listen(finish))
        seconds = await self.left.seconds()
        finish.set()
        await listening
        await self.broker.shutdown()
        return seconds


@peer.task
async def publish_one(url: str, count: int) -> float:
    """One awaited `kiq` after another."""
    queue = Queue(url, count)
    await queue.broker.startup()
    seconds = await one_by_one(queue.publish, count)
    await queue.broker.shutdown()
    return seconds


@peer.task
async def publish_tasks(url: str, count: int) -> float:
    """256 tasks, each awaiting its own `kiq`."""
    queue = Queue(url, count)
    await queue.broker.startup()
    seconds = await by_tasks(queue.publish, count)
    await queue.broker.shutdown()
    return seconds


# publish_batch: a task is sent by itself, there is no call for many.


@peer.task
async def consume_one(url: str, count: int) -> float:
    """One task at a time."""
    return await Queue(url, count).consume(1)


@peer.task
async def consume_64(url: str, count: int) -> float:
    """64 tasks at the same time."""
    return await Queue(url, count, LANES + 8).consume(LANES)


# consume_batch: batched tasks are in its documents, and not yet in a release (0.13.0).


if __name__ == "__main__":
    peer.main()
