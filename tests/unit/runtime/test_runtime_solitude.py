"""One suspect at a time has the process to itself."""

from __future__ import annotations

import asyncio

import pytest

from hyperbus.clock import SystemClock
from hyperbus.runtime import solitude
from hyperbus.runtime.solitude import Solitude


async def test_it_waits_until_nobody_runs() -> None:
    """In none of the workers of the process; meanwhile nobody begins."""
    here, busy = Solitude(SystemClock()), [2, 1]
    for number in range(2):
        here.join(lambda number=number: busy[number])
    entered = asyncio.Event()

    async def suspect() -> bool:
        async with here.alone() as alone:
            entered.set()
            return alone

    task = asyncio.create_task(suspect())
    for number in range(2):
        await asyncio.sleep(0.02)
        assert here.wanted
        assert not entered.is_set()
        busy[number] = 0
    assert await asyncio.wait_for(task, 2)
    assert not here.wanted


async def test_one_that_left_is_not_waited_for() -> None:
    """A worker that stopped with handlers cut off counts no more."""
    here = Solitude(SystemClock())

    def one() -> int:
        return 1

    here.join(one)
    here.leave(one)
    async with asyncio.timeout(2), here.alone() as alone:
        assert alone


async def test_patience_ends() -> None:
    """A handler that never ends does not keep a suspect for ever: it runs beside it, and is told so."""
    here = Solitude(SystemClock())
    here.join(lambda: 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solitude, "PATIENCE", 0.05)
        async with asyncio.timeout(2), here.alone() as alone:
            assert not alone


async def test_two_suspects_follow_each_other() -> None:
    """Never both at once, even from two workers; who waits for the end waits for both."""
    here, inside, most = Solitude(SystemClock()), 0, 0
    order: list[str] = []

    async def suspect(name: str) -> None:
        nonlocal inside, most
        async with here.alone():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            order.append(name)
            inside -= 1

    async with asyncio.timeout(2), asyncio.TaskGroup() as tasks:
        for name in ("a", "b", "c"):
            tasks.create_task(suspect(name))
        await asyncio.sleep(0)
        await here.over()
        order.append("others")
    assert most == 1
    assert sorted(order[:3]) == ["a", "b", "c"] or "others" in order


async def test_a_suspect_that_is_cancelled_lets_others_begin() -> None:
    """While it waits, and while it runs."""
    here, busy = Solitude(SystemClock()), [1]
    here.join(lambda: busy[0])

    async def suspect() -> None:
        async with here.alone():
            await asyncio.Event().wait()

    for running in (1, 0):
        busy[0] = running
        task = asyncio.create_task(suspect())
        await asyncio.sleep(0.02)
        assert here.wanted
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(here.over(), 1)
