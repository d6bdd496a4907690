"""Exceptions in words: a traceback from the user's own frame on, whichever way the call took; bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbus import Backoff, Bus, Event, consumer
from hyperbus.error_text import describe, message_of, place_of, traceback_of, users_traceback
from hyperbus.signals import DeliveryFailed, Signal
from tests.unit.runtime.running import unique


async def failure_of(**options: Any) -> BaseException:
    """Return what the bus announces when a handler fails."""
    heard: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def hear(signal: Signal) -> None:
        if isinstance(signal, DeliveryFailed) and not heard.done():
            heard.set_result(signal.error)

    call = options.pop("call")
    declared = consumer(group=unique(), types=[name := unique()], retry=Backoff(tries=1), **options)(call)
    async with asyncio.timeout(10), Bus("memory://", listeners=[hear]) as bus, bus.running(declared):
        await bus.publish(Event(type=name, data={}))
        return await heard


async def asks(event: Event) -> None:
    fails()


def plain(event: Event) -> None:
    fails()


async def waits(event: Event) -> None:
    await asyncio.sleep(60)


async def batch(events: list[Event]) -> None:
    fails()


def fails() -> None:
    raise KeyError("here")


async def layer(event: Any, delivery: Any, call_next: Any) -> Any:
    return await call_next(event, delivery)


@pytest.mark.parametrize(
    ("options", "functions"),
    [
        ({"call": asks}, ["asks", "fails"]),
        ({"call": plain}, ["plain", "fails"]),
        ({"call": batch}, ["batch", "fails"]),
        ({"call": asks, "middleware": [layer, layer]}, ["layer", "layer", "asks", "fails"]),
        ({"call": asks, "timeout": 5}, ["asks", "fails"]),
    ],
    ids=["async", "plain", "batch", "middleware", "timeout"],
)
async def test_only_the_user_s_frames_are_shown(options: dict[str, Any], functions: list[str]) -> None:
    """In the order of the calls."""
    error = await failure_of(**options)
    shown = [line.split(" in ")[1] for line in traceback_of(error).splitlines() if line.startswith('  File "')]
    assert shown == functions
    assert traceback_of(error).endswith("KeyError: 'here'\n")
    assert place_of(error).startswith("test_error_text.py:")
    assert place_of(error).endswith(" in fails")
    trace = users_traceback(error)
    assert trace is not None
    assert trace.tb_frame.f_code.co_name == functions[0]


async def test_a_timeout_shows_where_the_handler_was() -> None:
    """Its own traceback ends in ours; that of its cause does not."""
    text = traceback_of(await failure_of(call=waits, timeout=0.01))
    assert "in waits" in text
    assert "took longer than its timeout" in text
    assert "hyperbus/runtime" not in text


def test_a_long_traceback_keeps_its_beginning_and_its_end() -> None:
    """It begins in the user's code, and its end says what was wrong."""

    def deep(depth: int) -> None:
        if depth:
            deeper(depth - 1)
        raise ValueError("y" * 300 + " the end")

    def deeper(depth: int) -> None:
        deep(depth)

    try:
        deep(60)
    except ValueError as error:
        text = traceback_of(error, 2_000)
    assert len(text) <= 2_000
    assert text.startswith("Traceback (most recent call last):\n")
    assert "in test_a_long_traceback" in text
    assert "the end" in text
    assert "\n  ...\n" in text


def test_an_exception_that_says_nothing_is_its_name() -> None:
    """And one that says much is cut."""
    assert describe(ValueError()) == "ValueError"
    assert describe(ValueError("no")) == "ValueError: no"
    assert len(describe(ValueError("x" * 10_000))) == 1_000
    assert message_of(ValueError("x" * 10_000), 5) == "xxxxx"
