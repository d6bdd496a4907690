"""Slow work was not shared: the first worker that read took a thousand entries, and the others had nothing to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

import pytest

from hyperbus import Bus, Event, consumer
from hyperbus.settings import Settings
from tests.recorder import eventually
from tests.servers import Server
from tests.unit.runtime.running import unique

pytestmark = pytest.mark.alone

#: What sharing may cost beside the ideal time, which is that of all lanes being busy to the end.
FACTOR, BESIDE = 1.2, 0.2


class Crew:
    """Workers of one group, each on a bus of its own, and what each of them began, and when."""

    def __init__(self, server: Server, **options: Any) -> None:
        self.kind = unique()
        self.began: dict[int, list[float]] = {}
        self.done = 0
        self._server = server
        self._options = options
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.publisher = await self._stack.enter_async_context(Bus(settings=Settings(url=self._server.url)))
        return self

    async def __aexit__(self, *arguments: object) -> None:
        await self._stack.__aexit__(None, None, None)

    async def join(self) -> None:
        """Let one more worker join."""
        bus = await self._stack.enter_async_context(Bus(settings=Settings(url=self._server.url, drain_timeout=0.1)))
        began = self.began[len(self.began)] = []

        async def one(event: Event) -> None:
            began.append(time.monotonic())
            await self.handle(event.data)
            self.done += 1

        async def many(events: list[Event]) -> None:
            began.extend([time.monotonic()] * len(events))
            await self.handle(events[0].data)
            self.done += len(events)

        declare = consumer(group=self.kind, types=[self.kind], **self._options)
        await self._stack.enter_async_context(bus.running(declare(many if "batch" in self._options else one)))

    async def handle(self, data: dict[str, Any]) -> None:
        """Take as long as the event says."""
        await asyncio.sleep(data["takes"])

    async def publish(self, *takes: float) -> None:
        """Publish an event for each of these durations."""
        await self.publisher.publish_many([Event(type=self.kind, data={"takes": seconds}) for seconds in takes])

    async def until(self, done: int, *, within: float = 60.0) -> float:
        """Wait until so many are done; return when that was."""
        await eventually(lambda: self.done >= done, within=within)
        assert self.done == done
        return time.monotonic()

    def counts(self) -> list[int]:
        return [len(began) for began in self.began.values()]


def ideal(work: float, lanes: int, joins: Sequence[float]) -> float:
    """Return how long work takes that is shared for all the time that workers are there, who joined one by one."""
    now, there = 0.0, 0
    for join, until in zip(joins, [*joins[1:], float("inf")], strict=True):
        there += lanes
        now = join
        if work <= (until - join) * there:
            return now + work / there
        work -= (until - join) * there
    raise AssertionError("the last worker has no end")


@pytest.mark.parametrize(
    ("events", "joins", "options"),
    [
        pytest.param(100, (0.0, 0.0), {}, id="two wait"),
        pytest.param(120, (0.0, 1.0), {}, id="a second joins"),
        pytest.param(200, (0.0, 0.5, 1.0, 1.5), {}, id="four join"),
        pytest.param(800, (0.0, 0.0), {"concurrency": 8}, id="eight lanes"),
        pytest.param(1000, (0.0, 0.0), {"batch": 10}, id="batches"),
    ],
)
async def test_workers_share_slow_work(
    server: Server, events: int, joins: Sequence[float], options: dict[str, Any]
) -> None:
    """50 ms an event, or a batch: all workers are busy to the end, and one that joins takes its part at once."""
    takes = 0.05
    async with Crew(server, **options) as crew:
        if not any(joins):
            for _ in joins:
                await crew.join()
            await crew.publish(*[takes] * events)
            began = time.monotonic()
        else:
            await crew.publish(*[takes] * events)
            began = time.monotonic()
            for join in joins:
                await asyncio.sleep(max(0.0, began + join - time.monotonic()))
                await crew.join()
        took = await crew.until(events) - began
        best = ideal(events / options.get("batch", 1) * takes, options.get("concurrency", 1), joins)
        print(f"{took:.2f} s, at best {best:.2f} s; {crew.counts()}")
    assert took <= best * FACTOR + BESIDE


async def test_a_turn_from_quick_to_slow_is_shared(server: Server) -> None:
    """What a worker holds when its handlers turn slow goes to those who have nothing to do."""
    async with Crew(server) as crew:
        await crew.join()
        await crew.publish(*[0.0] * 1000, *[0.25] * 20)
        await crew.join()
        began = time.monotonic()
        took = await crew.until(1020) - began
        print(f"{took:.2f} s; {crew.counts()}")
    assert took <= 2.5 * FACTOR + BESIDE
