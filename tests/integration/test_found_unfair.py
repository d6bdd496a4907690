"""Slow work was not shared: the first worker that read took a thousand entries, and the others had nothing to do."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

import pytest

from hyperbus import Bus, Delivery, Event, Retry, consumer
from hyperbus.settings import Settings
from tests.commands import environment
from tests.recorder import eventually
from tests.servers import Server
from tests.unit.runtime.running import unique

pytestmark = pytest.mark.alone

LONG = pytest.mark.skipif(not os.environ.get("HYPERBUS_TEST_LONG"), reason="make test-long has it")
#: What sharing may cost beside the ideal time, which is that of all lanes being busy to the end.
FACTOR, BESIDE = 1.2, 0.2
#: The same where it has to be noticed first that handlers turned slow. Unshared, it takes twice the ideal time.
NOTICED = 0.7


class Crew:
    """Workers of one group, each on a bus of its own, and what each of them began, and when."""

    def __init__(self, server: Server, **options: Any) -> None:
        self.kind = unique()
        self.began: dict[int, list[float]] = {}
        self.done = 0
        #: When the first event began that takes any time.
        self.slow_since = float("inf")
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
        if data["takes"]:
            self.slow_since = min(self.slow_since, time.monotonic())
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
        pytest.param(800, (0.0, 0.0), {"concurrency": 8}, id="eight lanes", marks=LONG),
        pytest.param(1000, (0.0, 0.0), {"batch": 10}, id="batches"),
        pytest.param(200, (0.0, 0.5, 1.0, 1.5), {}, id="four join", marks=LONG),
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
        took = await crew.until(1020) - crew.slow_since
        print(f"{took:.2f} s; {crew.counts()}")
    assert took <= 2.5 * FACTOR + NOTICED


@pytest.mark.parametrize(
    ("quick", "options"),
    [
        pytest.param(2_000, {"concurrency": 8}, id="eight lanes"),
        pytest.param(5_000, {"batch": 10}, id="batches", marks=LONG),
    ],
)
async def test_many_at_once_that_turn_slow_are_shared(server: Server, quick: int, options: dict[str, Any]) -> None:
    """As for one at a time; a batch is slow as a whole."""
    lanes, size = options.get("concurrency", 1), options.get("batch", 1)
    slow = 20 * lanes * size
    async with Crew(server, **options) as crew:
        await crew.join()
        await crew.publish(*[0.0] * quick, *[0.25] * slow)
        await crew.join()
        took = await crew.until(quick + slow) - crew.slow_since
        print(f"{took:.2f} s; {crew.counts()}")
    assert took <= 2.5 * FACTOR + NOTICED


class Stuck:
    """Two workers of a group on buses of their own, of which the first is stuck in an event that never ends."""

    def __init__(self, server: Server) -> None:
        self.kind = unique()
        self.first: list[tuple[str, int]] = []
        self.second: list[tuple[str, int]] = []
        self.settings = Settings(url=server.url, drain_timeout=0.1)

    def worker(self, seen: list[tuple[str, int]], **options: Any) -> Any:
        async def one(event: Event, delivery: Delivery) -> None:
            await many([event], [delivery])

        async def many(events: list[Event], deliveries: list[Delivery]) -> None:
            seen.extend((event.data["does"], each.tries) for event, each in zip(events, deliveries, strict=True))
            if any(event.data["does"] == "hangs" for event in events):
                await asyncio.Event().wait()
            if any(
                (event.data["does"], each.tries) == ("fails", 1) for event, each in zip(events, deliveries, strict=True)
            ):
                raise Retry(after=0.3)

        declare = consumer(group=self.kind, types=[self.kind], **options)
        return declare(many if "batch" in options else one)

    async def publish(self, bus: Bus, *does: str) -> None:
        await bus.publish_many([Event(type=self.kind, data={"does": what}) for what in does])


@pytest.mark.parametrize("options", [{}, {"concurrency": 4}, {"batch": 5}], ids=["one lane", "four lanes", "batches"])
async def test_a_worker_that_is_stuck_keeps_none_of_the_others(server: Server, options: dict[str, Any]) -> None:
    """Neither what it held, nor what waits for its next try; and no try is counted for the way."""
    here = Stuck(server)
    does = (
        ["quick"] * 500 + ["fails"] * 5 + ["quick"] * 10 + ["hangs"] * options.get("concurrency", 1) + ["behind"] * 20
    )

    def are_done() -> bool:
        both = here.first + here.second
        return both.count(("behind", 1)) == 20 and both.count(("fails", 2)) == 5

    async with Bus(settings=here.settings) as a, Bus(settings=here.settings) as b:
        await here.publish(a, *does)
        async with a.running(here.worker(here.first, **options)):
            await eventually(lambda: here.first.count(("hangs", 1)) == does.count("hangs"))
            async with b.running(here.worker(here.second, **options)):
                await eventually(are_done, within=5)
    assert ("behind", 1) in here.second
    assert {tries for what, tries in here.first + here.second if what in ("hangs", "behind")} == {1}


async def test_a_retry_that_is_due_while_its_worker_is_stuck_goes_to_another(server: Server) -> None:
    """Within a second or so, and it is its second try."""
    here = Stuck(server)
    async with Bus(settings=here.settings) as a, Bus(settings=here.settings) as b:
        await here.publish(a, "fails", "hangs")
        async with a.running(here.worker(here.first)):
            await eventually(lambda: ("hangs", 1) in here.first)
            async with b.running(here.worker(here.second)):
                await eventually(lambda: ("fails", 2) in here.second, within=5)
    assert here.second == [("fails", 2)]


async def test_a_parked_entry_that_is_due_waits_for_no_worker_that_is_stuck(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is idle takes it."""
    monkeypatch.setattr("hyperbus.runtime.outcomes.retry_scheduler.PARK_AFTER", 0.1)
    here = Stuck(server)
    async with Bus(settings=here.settings) as a, Bus(settings=here.settings) as b:
        await here.publish(a, "fails", "hangs")
        async with a.running(here.worker(here.first)), b.running(here.worker(here.second)):
            both = lambda: here.first + here.second  # noqa: E731
            await eventually(lambda: ("fails", 2) in both() and ("hangs", 1) in both(), within=8)


BLOCKS = """
import asyncio, sys, time
from hyperbus import Bus, Event, consumer
from hyperbus.settings import Settings

@consumer(group="g", types=[sys.argv[2]])
async def handler(event: Event) -> None:
    print(event.data["takes"], flush=True)
    time.sleep(event.data["takes"])

async def main():
    async with Bus(settings=Settings(url=sys.argv[1])) as bus:
        await bus.run(handler)

asyncio.run(main())
"""


async def test_a_worker_that_blocks_its_event_loop_shares_between_two_events(server: Server) -> None:
    """It can do nothing while it is blocked; what it holds goes to others when it comes up for air."""
    kind, seen = unique(), list[float]()

    @consumer(group="g", types=[kind])
    async def handler(event: Event) -> None:
        seen.append(event.data["takes"])
        await asyncio.sleep(event.data["takes"])

    async with Bus(settings=Settings(url=server.url, drain_timeout=0.1)) as bus:
        takes = [0.0] * 1000 + [0.5] * 16
        await bus.publish_many([Event(type=kind, data={"takes": seconds}) for seconds in takes])
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", BLOCKS, server.url, kind, stdout=asyncio.subprocess.PIPE, env=environment()
        )
        assert program.stdout is not None
        try:
            async with asyncio.timeout(30):
                while await program.stdout.readline() != b"0.5\n":
                    pass
                began = time.monotonic()
                async with bus.running(handler):
                    await eventually(lambda: len(seen) >= 4, within=15)
                    print(f"the fourth began after {time.monotonic() - began:.2f} s")
                    assert time.monotonic() - began < 5
        finally:
            program.kill()
            await program.wait()
