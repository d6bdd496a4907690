"""How many events a second go in and out, and how that compares with a bare socket in the same run.

Prints one line a question: events a second, and the ratio to the ceiling (`bare.py`), median of interleaved rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from bare import Bare, consume, publish
from prometheus_client import CollectorRegistry
from server import server

from hyperbus import Bus, Event, EventData, consumer
from hyperbus.event.codec import JsonCodec
from hyperbus.observability.metrics import BusMetrics
from hyperbus.settings import Settings


class Benched(EventData, type="bench.event"):
    """About as much as an event of the demo holds."""

    contract: str
    network: str
    step: int
    note: str


DATA = Benched(contract="ERC20", network="testnet", step=7, note="x" * 40)
STREAM = "events:bench.event"


class Throughput:
    """One round of every question, on one server."""

    def __init__(self, host: str, port: int, count: int) -> None:
        self.url = f"redis://{host}:{port}/0"
        self.bare = Bare(host, port)
        self.count = count
        self.groups = 0
        self.body = JsonCodec().encode(Event(data=DATA, workflow_id="wf-000001", source_agent="bench"))

    def bus(self, *, metrics: bool = False) -> Bus:
        """Return a bus on the server, with metrics as a worker has them if asked for."""
        listeners = [BusMetrics(CollectorRegistry())] if metrics else []
        return Bus(self.url, source_agent="bench", listeners=listeners, settings=Settings())

    def reset(self, *, filled: bool) -> None:
        """Empty the server; fill the stream if the question is about reading."""
        self.bare.ask(b"FLUSHALL\r\n")
        if filled:
            publish(self.bare, STREAM, self.body, self.count)

    async def bare_publish(self) -> float:
        """The ceiling of publishing."""
        started = time.perf_counter()
        publish(self.bare, STREAM, self.body, self.count)
        return time.perf_counter() - started

    async def publish_many(self) -> float:
        """`publish_many`, typed events, 500 at a time."""
        async with self.bus() as bus:
            events = [Event(data=DATA, workflow_id="wf-000001") for _ in range(500)]
            started = time.perf_counter()
            for _ in range(self.count // 500):
                await bus.publish_many(events)
            return time.perf_counter() - started

    async def publish_tasks(self) -> float:
        """256 tasks, each awaiting its own `publish`."""
        async with self.bus() as bus:

            async def one(times: int) -> None:
                for _ in range(times):
                    await bus.publish(DATA, workflow_id="wf-000001")

            started = time.perf_counter()
            await asyncio.gather(*[one(self.count // 256) for _ in range(256)])
            return (time.perf_counter() - started) * self.count / (self.count // 256 * 256)

    async def bare_consume(self) -> float:
        """The ceiling of reading and acking."""
        self.groups += 1
        started = time.perf_counter()
        consume(self.bare, STREAM, f"bare-{self.groups}", self.count)
        return time.perf_counter() - started

    async def consume_one(self) -> float:
        """One awaited handler an event, typed, acked, metrics on."""
        return await self._consume(concurrency=1)

    async def consume_64(self) -> float:
        """64 handlers at once that do nothing."""
        return await self._consume(concurrency=64)

    async def _consume(self, *, concurrency: int) -> float:
        self.groups += 1
        left = self.count
        done = asyncio.Event()

        @consumer(group=f"bench-{self.groups}", concurrency=concurrency)
        async def handle(_event: Event[Benched]) -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set()

        return await self._timed(handle, done)

    async def consume_batch(self) -> float:
        """A batch handler, up to 500 events a call."""
        self.groups += 1
        left = self.count
        done = asyncio.Event()

        @consumer(group=f"bench-{self.groups}", batch=500)
        async def handle(events: list[Event[Benched]]) -> None:
            nonlocal left
            left -= len(events)
            if left <= 0:
                done.set()

        return await self._timed(handle, done)

    async def _timed(self, handle: object, done: asyncio.Event) -> float:
        async with self.bus(metrics=True) as bus:
            started = time.perf_counter()
            async with bus.running(handle):
                await done.wait()
                taken = time.perf_counter() - started
        return taken


QUESTIONS: dict[str, tuple[bool, str, str]] = {
    # name: reads, method, ceiling
    "bare publish": (False, "bare_publish", "bare publish"),
    "publish_many, 500 at a time": (False, "publish_many", "bare publish"),
    "256 tasks, one publish each": (False, "publish_tasks", "bare publish"),
    "bare consume": (True, "bare_consume", "bare consume"),
    "one handler an event": (True, "consume_one", "bare consume"),
    "64 handlers at once": (True, "consume_64", "bare consume"),
    "batch handler": (True, "consume_batch", "bare consume"),
}


async def measure(count: int, rounds: int) -> dict[str, list[float]]:
    """Return seconds a round for every question, rounds interleaved."""
    taken: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    with server() as (host, port):
        for number in range(rounds + 1):
            bench = Throughput(host, port, count)
            for name, (reads, method, _) in QUESTIONS.items():
                bench.reset(filled=reads)
                ask: Callable[[], Awaitable[float]] = getattr(bench, method)
                seconds = await ask()
                if number:  # the first round warms up
                    taken[name].append(seconds)
            bench.bare.close()
            print(f"round {number} of {rounds}", file=sys.stderr)
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="events a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    taken = asyncio.run(measure(options.count, options.rounds))
    rows = []
    for name, (_, _, ceiling) in QUESTIONS.items():
        ratio = statistics.median(c / t for c, t in zip(taken[ceiling], taken[name], strict=True))
        rows.append(
            {"question": name, "events_per_second": options.count / statistics.median(taken[name]), "ratio": ratio}
        )
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['question']:<30}{row['events_per_second']:>12,.0f} events/s {row['ratio']:>7.2f} of bare")


if __name__ == "__main__":
    main()
