"""Whatever a handler returns that can be awaited is awaited; nothing is acked that has not run."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from types import coroutine
from typing import Any

import pytest

from hyperbus import Event, consumer
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique
from tests.unit.runtime.shapes import TWICE, dead_letters, goes_on

Work = Callable[..., Any]


def wrapper(work: Work) -> Work:
    """As a decorator for timing or tracing makes it."""

    @functools.wraps(work)
    def plain(*arguments: Any) -> Any:
        return work(*arguments)

    return plain


class Awaitable:
    def __init__(self, coro: Any) -> None:
        self._coro = coro

    def __await__(self) -> Any:
        return self._coro.__await__()


def returns_a_task(work: Work) -> Work:
    async def handler(event: Event) -> Any:
        return asyncio.ensure_future(work(event))

    return handler


def returns_a_coroutine(work: Work) -> Work:
    async def handler(event: Event) -> Any:
        return work(event)  # `await` was forgotten

    return handler


def returns_an_awaitable(work: Work) -> Work:
    def handler(event: Event) -> Any:
        return Awaitable(work(event))

    return handler


def returns_an_old_coroutine(work: Work) -> Work:
    @coroutine
    def old(event: Event) -> Any:
        return (yield from work(event).__await__())

    def handler(event: Event) -> Any:
        return old(event)

    return handler


def returns_a_future_of_a_pool(work: Work) -> Work:
    pool = ThreadPoolExecutor(1)

    def handler(event: Event) -> Future[Any]:
        return pool.submit(asyncio.run, work(event))

    return handler


def returns_nested(work: Work) -> Work:
    async def outer(event: Event) -> Any:
        return Awaitable(work(event))

    def handler(event: Event) -> Any:
        return outer(event)

    return handler


WAYS = [
    wrapper, returns_a_task, returns_a_coroutine, returns_an_awaitable, returns_an_old_coroutine,
    returns_a_future_of_a_pool, returns_nested,
]  # fmt: skip


def named(work: Work) -> Work:
    work.__annotations__ = {}
    return work


@pytest.mark.parametrize("options", [{}, {"timeout": 20}, {"middleware": 1}, {"order_by": "workflow_id"}], ids=str)
@pytest.mark.parametrize("way", WAYS)
async def test_what_a_handler_returns_is_awaited(way: Callable[[Work], Work], options: dict[str, Any]) -> None:
    """Its failure is the delivery's; it is acked only when it is done."""
    kind, group, seen, after = unique(), unique(), list[int](), list[int]()

    async def work(event: Event) -> None:
        await asyncio.sleep(0.01)
        if event.data["n"] == 1:
            raise ValueError
        seen.append(event.data["n"])

    async def layer(event: Any, delivery: Any, call_next: Any) -> Any:
        try:
            return await call_next(event, delivery)
        finally:
            after.append(len(seen))

    if options.get("middleware"):
        options = {"middleware": [layer]}
    handler = consumer(group=group, types=[kind], retry=TWICE, **options)(named(way(work)))
    async with Running() as here, goes_on(here, handler):
        await here.publish(kind, 1, 2)
        (letter,) = await dead_letters(here, kind, group)
        await eventually(lambda: seen == [2])
    assert (letter.error, letter.tries) == ("ValueError", 2)
    assert not after or 1 in after, "what wraps the handler sees it done"


async def test_what_a_batch_returns_is_awaited_and_then_looked_at() -> None:
    """One outcome an event, in the end."""
    kind, group, seen = unique(), unique(), list[int]()

    async def work(events: list[Event]) -> list[Exception | None]:
        await asyncio.sleep(0)
        seen.extend(event.data["n"] for event in events)
        return [ValueError() if event.data["n"] == 1 else None for event in events]

    @consumer(group=group, types=[kind], retry=TWICE, batch=2)
    @functools.wraps(work)
    def handler(events: list[Event]) -> Any:
        return work(events)

    async with Running() as here, goes_on(here, handler):
        await here.publish(kind, 1, 2)
        (letter,) = await dead_letters(here, kind, group)
    assert seen.count(2) == 1
    assert letter.error == "ValueError"


async def generates(event: Event) -> AsyncGenerator[int]:
    yield 1


def yields(event: Event) -> Generator[int]:
    yield 1


@pytest.mark.parametrize("way", [generates, yields])
@pytest.mark.parametrize("wrapped", [functools.wraps, None])
async def test_a_generator_fails_its_delivery(way: Work, wrapped: Any) -> None:
    """Nothing of it has run, so it is not done."""
    kind, group = unique(), unique()

    def handler(event: Event) -> Any:
        return way(event)

    declared = consumer(group=group, types=[kind], retry=TWICE)(wrapped(way)(handler) if wrapped else handler)
    async with Running() as here, goes_on(here, declared):
        await here.publish(kind, 1)
        (letter,) = await dead_letters(here, kind, group)
    assert (letter.error, letter.reason) == ("DeclarationError", "exhausted")
    assert "generator" in letter.message
