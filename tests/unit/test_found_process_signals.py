"""Found by use: what `bus.run` does with the signal handlers of the program that calls it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hyperbus import Bus, Event, HyperbusError, consumer
from hyperbus.settings import Settings
from tests.unit.runtime.running import unique

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _the_tests_own_handlers() -> Iterator[None]:
    before = [(number, signal.getsignal(number)) for number in SIGNALS]
    yield
    for number, handler in before:
        signal.signal(number, handler)


async def run_until(number: signal.Signals | None) -> None:
    """Run a consumer until this signal comes, or the run is cancelled."""

    @consumer(group=unique(), types=[kind := unique()])
    async def ends(event: Event) -> None:
        if number is not None:
            os.kill(os.getpid(), number)

    async with Bus("memory://", settings=Settings(heartbeat_ttl=0.2)) as bus:
        running = asyncio.create_task(bus.run(ends))
        await bus.publish(Event(type=kind, data={}))
        if number is None:
            while signal.getsignal(signal.SIGTERM) is _mine:
                await asyncio.sleep(0.005)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        else:
            await asyncio.wait_for(running, 20)


def _mine(number: int, frame: Any) -> None: ...


@pytest.mark.parametrize("number", [*SIGNALS, None], ids=["SIGTERM", "SIGINT", "cancelled"])
@pytest.mark.parametrize("before", [_mine, signal.SIG_IGN, signal.SIG_DFL, signal.default_int_handler])
async def test_handlers_are_given_back(number: signal.Signals | None, before: Any) -> None:
    """Whatever the program had for these signals, it has again when `run` is over, however that came about."""
    for each in SIGNALS:
        signal.signal(each, before)
    if number is None:
        signal.signal(signal.SIGTERM, _mine)
    await run_until(number)
    assert [signal.getsignal(each) for each in SIGNALS] == [before if number else _mine, before]


async def test_handlers_of_the_event_loop_are_given_back() -> None:
    """What the program had told the same event loop to call is called again, with its arguments."""
    heard: list[str] = []
    loop = asyncio.get_running_loop()
    for each in SIGNALS:
        loop.add_signal_handler(each, heard.append, each.name)
    await run_until(signal.SIGTERM)
    assert heard == []
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL  # which would end the tests
    for each in SIGNALS:
        os.kill(os.getpid(), each)
    async with asyncio.timeout(10):
        while len(heard) < 2:
            await asyncio.sleep(0.005)
    assert sorted(heard) == ["SIGINT", "SIGTERM"]
    for each in SIGNALS:
        loop.remove_signal_handler(each)


async def test_a_handler_that_was_changed_meanwhile_is_not_the_programs_first() -> None:
    """One `run` after another, and one inside the other's time: the first handler is back at the end."""
    for each in SIGNALS:
        signal.signal(each, _mine)
    await run_until(signal.SIGTERM)
    await run_until(signal.SIGINT)
    assert [signal.getsignal(each) for each in SIGNALS] == [_mine, _mine]


async def test_a_run_outside_the_main_thread_points_to_running() -> None:
    """It could take no signal; nothing has begun."""
    errors: list[BaseException] = []

    async def runs() -> None:
        @consumer(group=unique(), types=[unique()])
        async def idle(event: Event) -> None: ...

        async with Bus("memory://", settings=Settings()) as bus:
            await bus.run(idle)

    def in_thread() -> None:
        try:
            asyncio.run(runs())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=in_thread, daemon=True)
    thread.start()
    await asyncio.to_thread(thread.join, 20)
    assert isinstance(errors[0], HyperbusError)
    assert "running" in str(errors[0])
