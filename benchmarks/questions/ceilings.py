"""What a Python program can reach at best: plain blocking sockets and the C parser, in lock-step."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable

from benchmarks.bare import Bare, append, consume, pack
from benchmarks.form import Depth
from benchmarks.question import Figure, Loop, Place, Question, Values
from benchmarks.workload import BATCH, STREAM, encoded, event, fill

#: How many handlers wait at once where they wait.
WAITING = 64
#: For how long each, in seconds.
PAUSE = 0.001
#: The thresholds of the garbage collector with which Python starts.
DEFAULT_COLLECTOR = gc.get_threshold()


async def publish(place: Place) -> Values:
    """500 pre-packed XADDs a write, then their 500 replies."""
    (body,) = await encoded(place, [event()])
    count = place.events(200_000)
    with Bare(place.host, place.port) as bare:
        command = pack("XADD", STREAM, "*", "data", body)
        append(bare, [command], BATCH)
        started = time.perf_counter()
        append(bare, [command], count)
        return {"bare_publish": count / (time.perf_counter() - started)}


async def publish_one(place: Place) -> Values:
    """One pre-packed XADD, then its reply."""
    (body,) = await encoded(place, [event()])
    count = place.events(20_000)
    with Bare(place.host, place.port) as bare:
        command = pack("XADD", STREAM, "*", "data", body)
        started = time.perf_counter()
        for _ in range(count):
            bare.ask(command)
        return {"bare_publish_one": count / (time.perf_counter() - started)}


async def read_and_ack(place: Place) -> Values:
    """XREADGROUP COUNT 500, then XACK; nothing is decoded."""
    count = place.events(200_000)
    await fill(place, count)
    with Bare(place.host, place.port) as bare:
        bare.ask(pack("XGROUP", "CREATE", STREAM, "bench", "0"))
        started = time.monotonic()
        return {"bare_consume": count / (consume(bare, STREAM, "bench", count) - started)}


async def read_and_ack_plain(place: Place) -> Values:
    """The same in a process whose garbage collector is as Python sets it, and not as in a worker process."""
    gc.unfreeze()
    gc.set_threshold(*DEFAULT_COLLECTOR)
    return {"bare_consume_plain": (await read_and_ack(place))["bare_consume"]}


async def sleep(place: Place) -> Values:
    """64 tasks that only sleep, 1 ms at a time."""
    times = place.events(40_000) // WAITING

    async def wait() -> None:
        for _ in range(times):
            await asyncio.sleep(PAUSE)

    started = time.perf_counter()
    await asyncio.gather(*[wait() for _ in range(WAITING)])
    return {"bare_sleep": times * WAITING / (time.perf_counter() - started)}


def _question(
    name: str, measure: Callable[[Place], Awaitable[Values]], title: str, loop: Loop | None = "-"
) -> Question:
    return Question(name, measure, (Figure(name, title, loop=loop),), Depth.QUICK)


QUESTIONS = (
    _question("bare_publish", publish, "bare socket: XADD, 500 a write"),
    _question("bare_publish_one", publish_one, "bare socket: XADD, one by one"),
    _question("bare_consume", read_and_ack, "bare socket: XREADGROUP 500, XACK"),
    _question("bare_consume_plain", read_and_ack_plain, "bare socket: the same, Python's own gc settings"),
    _question("bare_sleep", sleep, "64 bare tasks that sleep 1 ms", loop=None),
)
