"""Events that are taken several at a time are handed over as if they had been taken one by one."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from hyperbus import Delivery, Event, consumer
from hyperbus.runtime.handling import fast_lane as hands
from hyperbus.runtime.handling.executor import Executor
from hyperbus.transport import NewEntry
from tests.recorder import eventually
from tests.unit.runtime.running import Running, body, unique

#: Enough for hands to have grown to their full size, several times over.
MANY = 300
#: One that lies in the middle of a hand.
MIDDLE = 170

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_order_is_kept_when_some_handlers_wait(concurrency: int) -> None:
    """What goes back to the inbox goes to its front: events begin in order, and each of them once."""
    kind, seen = unique(), []

    @consumer(group=unique(), types=[kind], concurrency=concurrency)
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])
        if event.data["n"] % 41 == 17:
            await asyncio.sleep(0)

    async with Running() as here:
        await here.publish(kind, *range(MANY))
        async with here.bus.running(handler):
            await eventually(lambda: len(seen) >= MANY)
    assert sorted(seen) == list(range(MANY))
    if concurrency == 1:
        assert seen == list(range(MANY))


async def test_other_lanes_take_what_a_waiting_handler_keeps_its_own_from() -> None:
    """One handler waits for all the events behind it."""
    kind, seen, others = unique(), [], asyncio.Event()

    @consumer(group=unique(), types=[kind], concurrency=2)
    async def handler(event: Event) -> None:
        if event.data["n"] == MIDDLE:
            await others.wait()
        seen.append(event.data["n"])
        if len(seen) == MANY - 1:
            others.set()

    async with Running() as here:
        await here.publish(kind, *range(MANY))
        async with here.bus.running(handler):
            await eventually(lambda: len(seen) == MANY)
    assert seen[-1] == MIDDLE


async def test_what_was_taken_and_not_begun_is_handed_over_without_a_try() -> None:
    """A worker that leaves while a handler waits gives back the rest of its hand as it was."""
    kind, group, began, tries = unique(), unique(), asyncio.Event(), {}

    @consumer(group=group, types=[kind])
    async def first(event: Event) -> None:
        if event.data["n"] == MIDDLE:
            began.set()
            await asyncio.Event().wait()

    @consumer(group=group, types=[kind])
    async def second(event: Event, delivery: Delivery) -> None:
        tries[event.data["n"]] = delivery.tries

    async with Running(drain_timeout=0.01) as here:
        await here.publish(kind, *range(MANY))
        async with here.bus.running(first):
            await began.wait()
        async with here.bus.running(second):
            await eventually(lambda: len(tries) == MANY - MIDDLE)
    assert tries == {MIDDLE: 2} | dict.fromkeys(range(MIDDLE + 1, MANY), 1)


async def test_one_that_cannot_be_read_harms_no_neighbour() -> None:
    """Broken bytes, and good ones under a foreign field, become dead letters; all others are handled once, in order."""
    kind, group, seen = unique(), unique(), []

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async with Running() as here:
        await here.publish(kind, *range(MIDDLE))
        await here.append(kind, b"{broken")
        foreign = NewEntry(f"events:{kind}", b"other", body(0, kind))
        await here.memory.streams.append([foreign])
        await here.publish(kind, *range(MIDDLE, MANY))
        async with here.bus.running(handler):
            await eventually(lambda: len(seen) == MANY)
        letters = await here.dead_letters(kind, group)
    assert seen == list(range(MANY))
    assert [letter.fields for letter in letters] == [[b"data", b"{broken"], [b"other", body(0, kind)]]
    assert {letter.reason for letter in letters} == {"undecodable"}


async def test_one_that_fails_is_tried_again_and_harms_no_neighbour() -> None:
    """Every other event is handled once."""
    kind, seen = unique(), []

    @consumer(group=unique(), types=[kind])
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])
        if seen.count(MIDDLE) == 1 and event.data["n"] == MIDDLE:
            raise ValueError("once")

    async with Running() as here:
        await here.publish(kind, *range(MANY))
        async with here.bus.running(handler):
            await eventually(lambda: len(seen) == MANY + 1)
    assert sorted(seen) == sorted([*range(MANY), MIDDLE])


async def test_what_one_handler_does_to_its_task_no_other_sees() -> None:
    """Neither a context variable, nor a cancellation, nor what became of a timeout and a task group."""
    kind, seen = unique(), []

    async def play(n: int, task: asyncio.Task[Any]) -> None:
        if n == MIDDLE:
            variable.set("dirty")
        elif n == MIDDLE + 10:
            task.cancel()
        elif n == MIDDLE + 20:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        elif n == MIDDLE + 30:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.sleep(0))

    @consumer(group=unique(), types=[kind])
    async def handler(event: Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        seen.append((event.data["n"], variable.get(), task.cancelling()))
        try:
            await play(event.data["n"], task)
        except TimeoutError:
            assert event.data["n"] == MIDDLE + 20

    async with Running() as here:
        await here.publish(kind, *range(MANY))
        async with here.bus.running(handler):
            await eventually(lambda: len(seen) == MANY)
    assert seen == [(n, "clean", 0) for n in range(MANY)]


async def test_between_two_turns_no_handler_counts_as_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspect waits until none runs; it must not be kept waiting by one that has ended."""
    monkeypatch.setattr(hands, "SLICE", 0.0)
    kind, seen, idle, executors = unique(), [], [], []
    start = Executor.run

    async def run(self: Executor) -> None:
        executors.append(self)
        await start(self)

    monkeypatch.setattr(Executor, "run", run)

    @consumer(group=unique(), types=[kind])
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async with Running() as here:
        await here.publish(kind, *range(MANY))
        async with here.bus.running(handler):
            while len(seen) < MANY:
                await asyncio.sleep(0)
                idle.append(all(executor._running.count() == 0 for executor in executors))
    assert all(idle)
