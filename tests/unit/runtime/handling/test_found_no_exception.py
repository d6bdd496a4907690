"""What is no `Exception` is a failure all the same: tried again, and then a dead letter. Only a signal ends a worker."""

from __future__ import annotations

import asyncio
import functools
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyperbus import Consumer, Event, EventData, consumer
from tests.commands import environment
from tests.recorder import eventually
from tests.unit.runtime.running import Running, body, unique
from tests.unit.runtime.shapes import TWICE, Works, dead_letters, declared, goes_on


class Panic(BaseException):
    """As extensions written in Rust raise."""


def exits() -> BaseException:
    try:
        sys.exit("for one event")
    except SystemExit as error:
        return error


RAISED: list[Callable[[], BaseException]] = [
    Panic, exits, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, StopIteration,
    StopAsyncIteration, lambda: BaseExceptionGroup("several", [Panic(), SystemExit(), KeyboardInterrupt()]),
    asyncio.TimeoutError, MemoryError, RecursionError,
]  # fmt: skip


def raises(event: Event, seen: list[int]) -> None:
    if event.data["n"] < len(RAISED):
        error = RAISED[event.data["n"]]()
        raise error
    seen.append(event.data["n"])


async def hands_on(event: Any, delivery: Any, call_next: Any) -> Any:
    return await call_next(event, delivery)


def middleware_raises(kind: str, seen: list[int]) -> Any:
    async def layer(event: Any, delivery: Any, call_next: Any) -> Any:
        raises(event, seen)

    @consumer(group=unique(), types=[kind], retry=TWICE, middleware=[hands_on, layer])
    async def handler(event: Event) -> None: ...

    return handler


def key_raises(kind: str, seen: list[int]) -> Any:
    def key(event: Event) -> str:
        raises(event, [])
        return "k"

    @consumer(group=unique(), types=[kind], retry=TWICE, order_by=key)
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    return handler


def method_raises(kind: str, seen: list[int]) -> Any:
    @consumer(group=unique(), types=[kind], retry=TWICE)
    class Raising(Consumer):
        async def handle(self, event: Event) -> None:
            raises(event, seen)

    return Raising


def returned_raises(kind: str, seen: list[int]) -> Any:
    @consumer(group=unique(), types=[kind], retry=TWICE, timeout=20)
    def handler(event: Event) -> Any:
        async def later() -> None:
            raises(event, seen)

        return later()

    return handler


def task_raises(kind: str, seen: list[int]) -> Any:
    @consumer(group=unique(), types=[kind], retry=TWICE, concurrency=3)
    async def handler(event: Event) -> None:
        await asyncio.sleep(0)
        raises(event, seen)

    return handler


OTHERS = [middleware_raises, key_raises, method_raises, returned_raises, task_raises]


@pytest.mark.parametrize(
    "declare",
    [
        *(
            functools.partial(lambda kind, seen, shape: declared(kind, lambda event: raises(event, seen), shape), shape=shape)
            for shape in ("one by one", "with delivery", "batch", "thread", "in order")
        ),
        *OTHERS,
    ],
    ids=["one by one", "with delivery", "batch", "thread", "in order", *(other.__name__ for other in OTHERS)],
)  # fmt: skip
async def test_whatever_a_handler_raises_is_its_deliverys_failure(declare: Callable[[str, list[int]], Any]) -> None:
    """From the handler, from what wraps it, from the key function, in a thread or not."""
    works = Works(declare)
    letters = await works.letters_after(*(body(n, works.kind) for n in range(len(RAISED))), dead=len(RAISED))
    assert len(letters) == len(RAISED)
    assert {(letter.reason, letter.tries) for letter in letters} == {("exhausted", 2)}
    named = {letter.error for letter in letters}
    assert {"Panic", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError"} <= named


@pytest.mark.parametrize("shape", ["at most once", "every process"])
async def test_what_is_not_tried_again_ends_no_worker(shape: str) -> None:
    """Whatever it was."""
    works = Works(lambda kind, seen: declared(kind, lambda event: raises(event, seen), shape))
    assert await works.letters_after(*(body(n, works.kind) for n in range(len(RAISED))), dead=0) == []


class Hooked(EventData, type="found.hooked"):
    n: int

    def __post_init__(self) -> None:
        if self.n < len(RAISED):
            error = RAISED[self.n]()
            raise error
        if self.n == 50:
            raise IndexError


@pytest.mark.parametrize("batch", [False, True])
async def test_whatever_a_class_raises_when_it_is_made_of_an_entry_makes_that_undecodable(batch: bool) -> None:
    """`__post_init__` is a user's code as well."""
    group, seen = unique(), list[int]()
    if batch:

        @consumer(group=group)
        async def handler(events: list[Event[Hooked]]) -> None:
            seen.extend(event.data.n for event in events)
    else:

        @consumer(group=group)
        async def handler(event: Event[Hooked]) -> None:
            seen.append(event.data.n)

    kind, bad = "found.hooked", [*range(len(RAISED)), 50]
    async with Running() as here, goes_on(here, handler):
        await here.append(kind, *(body(n, kind) for n in (*bad, 100, 101)))
        letters = await dead_letters(here, kind, group, len(bad))
        await eventually(lambda: seen == [100, 101])
    assert {letter.reason for letter in letters} == {"undecodable"}
    assert any("IndexError" in letter.message for letter in letters)


PROGRAM = """
import asyncio, os, signal, sys, threading
from hyperbus import Bus, Event, consumer

@consumer(group="g", types=["a.b"])
async def handler(event: Event) -> None:
    if event.data["n"] == 1:
        interrupt()

def on_signal(*_):
    {on_signal}

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(10**7):
        pass

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts this may have had it ignored

async def main():
    {install}
    async with Bus("memory://") as bus, bus.running(handler):
        await bus.publish(Event(type="a.b", data={{"n": 1}}))
        await asyncio.sleep(60)

{run}
"""


@pytest.mark.parametrize(
    ("install", "on_signal", "run", "code"),
    [
        ("pass", "pass", "asyncio.new_event_loop().run_until_complete(main())", -signal.SIGINT),
        ("pass", "pass", "asyncio.run(main())", -signal.SIGINT),
        ("signal.signal(signal.SIGINT, on_signal)", "sys.exit(7)", "asyncio.run(main())", 7),
        ("signal.signal(signal.SIGINT, on_signal)", "raise KeyboardInterrupt", "asyncio.run(main())", -signal.SIGINT),
    ],
    ids=["a loop of its own", "asyncio.run", "a handler that exits", "a handler that raises"],
)
def test_a_signal_ends_a_program_whatever_runs_when_it_comes(
    tmp_path: Path, install: str, on_signal: str, run: str, code: int
) -> None:
    """Ctrl-C meets a busy handler: nobody takes it for that one's failure."""
    (tmp_path / "program.py").write_text(PROGRAM.format(install=install, on_signal=on_signal, run=run))
    ended = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment(), capture_output=True, timeout=100, check=False
    )
    assert ended.returncode == code, ended.stderr.decode()[-2000:]
