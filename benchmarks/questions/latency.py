"""How long does an event take, from before its publish to the entry of its handler in another process?

Compared with the bare round: two processes, from before an XADD until the other one, blocked in XREAD, has parsed it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Coroutine
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.bare import Bare, pack
from benchmarks.form import Depth
from benchmarks.measuring import run_on
from benchmarks.question import Bar, Figure, Place, Question, Values
from benchmarks.workload import open_bus
from hyperbus import Event, EventData, consumer
from hyperbus.supervisor.worker_process.garbage_collector import calm_collector

#: Events a second.
RATES = (100, 1_000, 10_000)
#: For how long each rate is kept up in the default form, and the least in any, in seconds.
SECONDS = 3.0
LEAST_SECONDS = 1.0
#: Events that are sent before those that count.
WARM_UP = 20
#: The shortest pause between two looks at what is due.
_PAUSE = 0.0005

_processes = multiprocessing.get_context("spawn")


class Stamped(EventData, type="bench.stamped"):
    """Carries the moment before it was published, in seconds of the monotonic clock, which all processes share."""

    at: float


def quantiles(name: str, seconds: list[float]) -> Values:
    """Return p50, p99 and p99.9 in milliseconds."""
    ordered = sorted(seconds)
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return {f"{name}_{label}": ordered[int(share * len(ordered))] * 1000 for label, share in shares.items()}


def _events(rate: int, place: Place) -> int:
    return int(rate * max(LEAST_SECONDS, SECONDS * place.factor))


def _measure_bare_at(rate: int, place: Place) -> Values:
    count = WARM_UP + _events(rate, place)
    ours, theirs = _processes.Pipe()
    reading = _processes.Process(target=_read_bare, args=(place, count, theirs))
    reading.start()
    ours.recv()
    with Bare(place.host, place.port) as bare:
        started = time.monotonic()
        sent = 0
        while sent < count:
            due = min(count, int((time.monotonic() - started) * rate) + 1)
            stamped = [pack("XADD", "bare:latency", "*", "at", repr(time.monotonic())) for _ in range(due - sent)]
            bare.ask(b"".join(stamped), len(stamped))
            sent = due
            time.sleep(max(_PAUSE, 1 / rate))
    seconds: list[float] = ours.recv()
    reading.join()
    return quantiles(f"bare_round_{rate}", seconds[WARM_UP:])


def _read_bare(place: Place, count: int, report: Connection) -> None:
    seconds: list[float] = []
    last = b"0"
    with Bare(place.host, place.port) as bare:
        report.send(None)
        while len(seconds) < count:
            (answer,) = bare.ask(pack("XREAD", "COUNT", "100", "BLOCK", "5000", "STREAMS", "bare:latency", last))
            now = time.monotonic()
            for entry in answer[0][1]:
                last = entry[0]
                seconds.append(now - float(entry[1][1]))
    report.send(seconds)


async def _measure_at(rate: int, place: Place) -> Values:
    count = WARM_UP + _events(rate, place)
    ours, theirs = _processes.Pipe()
    consuming = _processes.Process(target=_consume, args=(place, count, theirs))
    consuming.start()
    await asyncio.to_thread(ours.recv)
    async with open_bus(place) as bus, asyncio.TaskGroup() as tasks:

        def publish() -> Coroutine[Any, Any, str]:
            return bus.publish(Stamped(at=time.monotonic()))

        for _ in range(WARM_UP):
            await publish()
        calm_collector()
        started = time.monotonic()
        sent = WARM_UP
        while sent < count:
            due = min(count, WARM_UP + int((time.monotonic() - started) * rate) + 1)
            for _ in range(due - sent):
                tasks.create_task(publish())
            sent = due
            await asyncio.to_thread(time.sleep, max(_PAUSE, 1 / rate))  # a loop's timers count whole milliseconds
    latencies: list[float] = await asyncio.to_thread(ours.recv)
    consuming.join()
    return quantiles(f"latency_{rate}", latencies[WARM_UP:])


def _consume(place: Place, count: int, report: Connection) -> None:
    report.send(run_on(place.loop, _consume_until(place, count, report)))


async def _consume_until(place: Place, count: int, report: Connection) -> list[float]:
    seconds: list[float] = []
    done = asyncio.Event()

    @consumer(group="latency")
    async def handle(event: Event[Stamped]) -> None:
        seconds.append(time.monotonic() - event.data.at)
        if len(seconds) == count:
            done.set()

    async with open_bus(place, metrics=True) as bus, bus.running(handle):
        calm_collector()
        report.send(None)
        await done.wait()
    return seconds


_BARS = {
    "latency_100_p50": (Bar(2.5, of="bare_round_100_p50", at_most=True),),
    "latency_10000_p50": (Bar(0.5, at_most=True),),
    "latency_10000_p99": (Bar(2.5, at_most=True),),
}


def _figure(name: str, title: str) -> Figure:
    bars = _BARS.get(name, ())
    bare = name.replace("latency", "bare_round")
    compared = name.startswith("latency") and all(bar.of is None for bar in bars)
    return Figure(name, title, "ms", against=(bare,) if compared else (), bars=bars)


def _question(rate: int, name: str, title: str, measure: Callable[[Place], Values | Awaitable[Values]]) -> Question:
    shown = {"p50": "p50", "p99": "p99", "p999": "p99.9"}
    figures = tuple(_figure(f"{name}_{rate}_{key}", f"{title} at {rate:,}/s, {label}") for key, label in shown.items())
    return Question(f"{name}_{rate}", measure, figures, Depth.DEFAULT if rate == 1_000 else Depth.QUICK)


def _bare_question(rate: int) -> Question:
    def measure(place: Place) -> Values:
        return _measure_bare_at(rate, place)

    return _question(rate, "bare_round", "bare round", measure)


def _bus_question(rate: int) -> Question:
    async def measure(place: Place) -> Values:
        return await _measure_at(rate, place)

    return _question(rate, "latency", "latency", measure)


QUESTIONS = (*map(_bare_question, RATES), *map(_bus_question, RATES))
