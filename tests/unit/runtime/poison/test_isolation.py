"""Suspects have the process to themselves, one at a time; neither they nor others wait for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbus.clock import SystemClock
from hyperbus.runtime.poison import isolation as solitude
from hyperbus.runtime.poison.isolation import Isolation, patience_for
from tests.recorder import eventually


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solitude, "PATIENCE", 0.02)


class Handlers:
    """Handlers of one worker; those that run began at these moments."""

    def __init__(self, here: Isolation, count: int = 0) -> None:
        self.began = [SystemClock().monotonic() for _ in range(count)]
        here.join(self.oldest)

    def oldest(self) -> float | None:
        return SystemClock().monotonic() - min(self.began) if self.began else None


class SuddenClock(SystemClock):
    """Its sleeps take no time, and move its monotonic time on."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.monotonic: Any = lambda: self.time
        self.here: Isolation | None = None
        self.held = self.free = self.hold = self.longest_hold = 0.0

    async def sleep(self, delay: float) -> None:
        self.time += delay
        if self.here is not None and self.here.wanted:
            self.held += delay
            self.hold += delay
            self.longest_hold = max(self.longest_hold, self.hold)
        else:
            self.free += delay
            self.hold = 0.0
        await asyncio.sleep(0)


async def test_it_waits_until_nobody_runs() -> None:
    """In none of the workers of the process; meanwhile nobody begins."""
    here = Isolation(SystemClock())
    busy = [Handlers(here, 2), Handlers(here, 1)]
    entered = asyncio.Event()

    async def suspect() -> bool:
        async with here.alone(3) as alone:
            entered.set()
            return alone

    task = asyncio.create_task(suspect())
    for handlers in busy:
        await asyncio.sleep(0.02)
        assert here.wanted
        assert not entered.is_set()
        handlers.began.clear()
    assert await asyncio.wait_for(task, 2)
    assert not here.wanted


async def test_one_that_left_is_not_waited_for() -> None:
    """A worker that stopped with handlers cut off counts no more."""
    here = Isolation(SystemClock())
    handlers = Handlers(here, 1)
    here.leave(handlers.oldest)
    async with asyncio.timeout(10), here.alone(3) as alone:
        assert alone


@pytest.mark.usefixtures("_short")
async def test_patience_ends() -> None:
    """A handler that never ends does not keep a suspect for ever: it runs beside it, and is told so."""
    here = Isolation(SystemClock())
    Handlers(here, 1)
    async with asyncio.timeout(10), here.alone(3) as alone:
        assert not alone
        assert not here.wanted


def test_patience_grows_with_the_deaths() -> None:
    """What is met by long handlers each time is found out in the end; but there is a bound."""
    assert [patience_for(tries) for tries in (1, 3, 4, 5, 6, 7, 99)] == [120, 120, 240, 480, 960, 960, 960]


@pytest.mark.parametrize("tries", [3, 7])
async def test_others_have_half_of_the_time_while_a_handler_never_ends(tries: int) -> None:
    """However long the suspect is patient."""
    clock = SuddenClock()
    here = clock.here = Isolation(clock)
    here.join(lambda: clock.time)  # one that began long ago
    async with here.alone(tries) as alone:
        assert not alone
    last = patience_for(tries)  # after which there is a rest, too
    assert clock.held == pytest.approx(2 * last - solitude.PATIENCE, rel=0.02)
    assert clock.free == pytest.approx(clock.held - last, rel=0.02)
    assert clock.longest_hold <= last + 1


async def test_many_suspects_wait_but_once_for_a_handler_that_never_ends() -> None:
    """Not one after another. When it has ended, they are alone again; one that is more patient tries anew."""
    clock = SuddenClock()
    here, began = Isolation(clock), [clock.time - 5]
    here.join(lambda: clock.time - min(began) if began else None)
    times: list[float] = []
    for tries in (3, 3, 3, 4, 3):
        async with here.alone(tries) as alone:
            assert not alone
        times.append(clock.time)
    assert times[0] == times[1] == times[2] < times[3] == times[4]
    clock.time += 1
    began[:] = [clock.time]
    ends_at = clock.time + 30

    async def ends() -> None:
        while clock.time < ends_at:
            await asyncio.sleep(0)
        began.clear()

    ending = asyncio.create_task(ends())
    async with here.alone(3) as alone:
        assert alone
    await ending


async def test_suspects_share_a_window() -> None:
    """Nobody begins between them, so that handlers are waited for once and not each time."""
    here, inside, most, order = Isolation(SystemClock()), 0, 0, list[str]()

    async def suspect(name: str) -> None:
        nonlocal inside, most
        async with here.alone(3):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            order.append(name)
            inside -= 1

    async def other() -> None:
        while here.wanted:
            await here.over()
        order.append("other")

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for name in ("a", "b", "c"):
            tasks.create_task(suspect(name))
        await eventually(lambda: here.wanted)
        tasks.create_task(other())
    assert most == 1
    assert order == ["a", "b", "c", "other"]


@pytest.mark.usefixtures("_short")
async def test_a_window_ends_and_others_have_as_long() -> None:
    """Suspects that never cease to come leave others half of the time."""
    here, clock = Isolation(SystemClock()), SystemClock()
    moments = {"held": 0.0, "free": 0.0}
    done = 0

    async def suspect() -> None:
        nonlocal done
        async with here.alone(3):
            await asyncio.sleep(0.005)
        done += 1

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for _ in range(40):
            tasks.create_task(suspect())
        await eventually(lambda: here.wanted)
        before = clock.monotonic()
        while done < 40:
            state = "held" if here.wanted else "free"
            await asyncio.sleep(0.0005)
            now = clock.monotonic()
            moments[state] += now - before
            before = now
    assert moments["free"] >= 0.5 * moments["held"]


async def test_a_suspect_that_is_cancelled_lets_others_begin() -> None:
    """While it waits, while it runs, and while it waits behind another."""
    here = Isolation(SystemClock())
    handlers = Handlers(here, 1)

    async def suspect() -> None:
        async with here.alone(3):
            await asyncio.Event().wait()

    for running in (1, 0):
        handlers.began = handlers.began[:running]
        tasks = [asyncio.create_task(suspect()) for _ in range(2)]
        await eventually(lambda: here.wanted)
        for task in tasks:
            assert here.wanted
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not here.wanted
        await asyncio.wait_for(here.over(), 1)


async def test_suspects_may_go_on_for_as_long_as_handlers_were_waited_for() -> None:
    """Else one that is only reached after a long wait would have to be waited for again by the next."""
    clock = SuddenClock()
    here = Isolation(clock)
    began, ends = clock.time, clock.time + 3.8 * solitude.PATIENCE
    here.join(lambda: clock.time - began if clock.time < ends else None)
    entered: list[float] = []

    async def suspect(seconds: float) -> None:
        async with here.alone(5) as alone:
            assert alone
            entered.append(clock.time)
            clock.time += seconds
            await asyncio.sleep(0)

    first = asyncio.create_task(suspect(1.2 * solitude.PATIENCE))
    second = asyncio.create_task(suspect(0.0))
    await asyncio.wait_for(asyncio.gather(first, second), 10)
    assert entered[1] - entered[0] == pytest.approx(1.2 * solitude.PATIENCE)
