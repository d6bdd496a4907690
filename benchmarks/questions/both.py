"""How fast are publishing and consuming at the same time, one process each, from the first publish to the last ack?

Compared with both bare loops at once: what two processes and the server reach on the same machine.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection

from benchmarks.bare import Bare, append, consume, pack
from benchmarks.form import Depth
from benchmarks.measuring import run_on
from benchmarks.question import Bar, Figure, Place, Question, Values
from benchmarks.questions.consume_one import handle
from benchmarks.workload import BATCH, MARGIN, STREAM, Acks, encoded, event, open_bus
from hyperbus.supervisor.worker_process.garbage_collector import calm_collector

_processes = multiprocessing.get_context("spawn")


async def measure_bare(place: Place) -> Values:
    """Both bare loops."""
    count = place.events(200_000)
    (body,) = await encoded(place, [event()])
    ours, theirs = _processes.Pipe()
    consuming = _processes.Process(target=_consume_bare, args=(place, count, theirs))
    with Bare(place.host, place.port) as bare:
        bare.ask(pack("XGROUP", "CREATE", STREAM, "bench", "0", "MKSTREAM"))
        consuming.start()
        ours.recv()
        started = time.monotonic()
        append(bare, [pack("XADD", STREAM, "*", "data", body)], count)
    taken: float = ours.recv() - started
    consuming.join()
    return {"bare_both": count / taken}


def _consume_bare(place: Place, count: int, report: Connection) -> None:
    calm_collector()
    with Bare(place.host, place.port) as bare:
        report.send(None)
        report.send(consume(bare, STREAM, "bench", count))


async def measure(place: Place) -> Values:
    """`publish_many` here, one handler an event there."""
    count = place.events(200_000)
    events = [event(number) for number in range(count)]
    ours, theirs = _processes.Pipe()
    consuming = _processes.Process(target=_consume, args=(place, BATCH, count, theirs))
    async with open_bus(place) as bus:
        await bus.publish_many(events[:BATCH])
        consuming.start()
        ours.recv()
        calm_collector()
        started = time.monotonic()
        for start in range(0, count, BATCH):
            await bus.publish_many(events[start : start + BATCH])
        taken: float = ours.recv() - started
    consuming.join()
    return {"both": count / taken}


def _consume(place: Place, before: int, count: int, report: Connection) -> None:
    run_on(place.loop, _consume_until(place, before, count, report))


async def _consume_until(place: Place, before: int, count: int, report: Connection) -> None:
    warm, acks = Acks(before, MARGIN, before), Acks(before, count, before + count)
    async with open_bus(place, warm, acks, metrics=True) as bus, bus.running(handle):
        await warm.done.wait()
        calm_collector()
        report.send(None)
        await acks.done.wait()
        report.send(time.monotonic())


QUESTIONS = (
    Question(
        "bare_both",
        measure_bare,
        (Figure("bare_both", "bare sockets: both at once", loop="-"),),
        Depth.QUICK,
    ),
    Question(
        "both",
        measure,
        (Figure("both", "publish_many and consume at once", bars=(Bar(0.55, of="bare_both"),)),),
        Depth.QUICK,
    ),
)
