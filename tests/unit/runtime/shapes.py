"""Handlers of every shape that do one thing, and whether their worker goes on after what was done to it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hyperbus import Backoff, Event, consumer
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique

TWICE = Backoff(initial=0, tries=2)


@asynccontextmanager
async def goes_on(here: Running, handler: Any) -> AsyncGenerator[None]:
    """Run a handler; fail, with an error that can be shown, where its worker ends by itself.

    Who shows an error looks at what its frames were called with, and some of that ends whoever looks.
    """
    failure = None
    try:
        async with here.bus.running(handler):
            yield
    except (TimeoutError, AssertionError) as error:
        failure = "".join(traceback.format_tb(error.__traceback__)) + f"{type(error).__name__}: {error}"
    except BaseException as error:
        failure = f"the worker ended: {type(error).__name__}"
    if failure is not None:
        pytest.fail(failure, pytrace=False)


async def dead_letters(here: Running, kind: str, group: str, count: int = 1) -> list[Any]:
    """Wait until a group has dead letters; return them."""
    async with asyncio.timeout(20):
        while len(letters := await here.dead_letters(kind, group)) < count:
            await asyncio.sleep(0.005)
    return letters


class Works:
    """Runs a handler, and tells that it goes on after what was done to it."""

    def __init__(self, declare: Callable[[str, list[int]], Any]) -> None:
        self.kind, self.seen = unique(), list[int]()
        self.handler = declare(self.kind, self.seen)
        self.group = self.handler.__hyperbus_declaration__.group

    async def letters_after(self, *bodies: bytes, good: int = 3, dead: int = 1) -> list[Any]:
        """Append entries, and good ones behind them; return the dead letters once all have ended."""
        async with Running() as here, goes_on(here, self.handler):
            await here.append(self.kind, *bodies)
            await here.publish(self.kind, *range(100, 100 + good))
            await eventually(lambda: set(self.seen) >= set(range(100, 100 + good)))
            letters = await dead_letters(here, self.kind, self.group, dead)
            await here.publish(self.kind, 999)
            await eventually(lambda: 999 in self.seen)
            return letters


SHAPES = ["one by one", "with delivery", "in order", "batch", "thread", "at most once", "every process"]


def declared(kind: str, work: Callable[[Event], Any], shape: str = "one by one") -> Any:
    """Declare a handler of some shape that calls `work` with each event."""
    options: dict[str, Any] = {"group": unique(), "types": [kind], "retry": TWICE}
    if shape == "with delivery":

        async def beside(event: Event, delivery: Any) -> Any:
            return work(event)

        return consumer(**options)(beside)
    if shape == "batch":

        async def batch(events: list[Event]) -> Any:
            for event in events:
                work(event)

        return consumer(**options, batch=1)(batch)
    if shape == "thread":

        def plain(event: Event) -> Any:
            return work(event)

        return consumer(**options)(plain)
    options |= {"in order": {"order_by": "workflow_id"}, "at most once": {"ack": "received"}}.get(shape, {})
    if shape == "every process":
        options["audience"] = "every_process"
    if shape in ("at most once", "every process"):
        del options["retry"]

    async def handler(event: Event) -> Any:
        return work(event)

    return consumer(**options)(handler)
