"""How long after SIGKILL are a worker's pending entries handled by another one, which has only its silence to go by?"""

from __future__ import annotations

import asyncio
import multiprocessing
import time

from benchmarks.bare import Bare, pack
from benchmarks.measuring import run_on
from benchmarks.question import Bar, Figure, Place, Question, Values
from benchmarks.questions.consume_one import handle
from benchmarks.workload import STREAM, Acks, Benched, fill, open_bus
from hyperbus import Event, consumer

#: Entries; the worker that is killed holds as many of them as it may.
COUNT = 2_000
_PAUSE = 0.02

_processes = multiprocessing.get_context("spawn")


async def measure(place: Place) -> Values:
    """Kill a worker that hangs; wait for the last ack."""
    await fill(place, COUNT)
    with Bare(place.host, place.port) as bare:
        bare.ask(pack("XGROUP", "CREATE", STREAM, "bench", "0"))  # so that it can be asked about
    victim = _processes.Process(target=_hang, args=(place,))
    victim.start()
    await _wait_for_pending(place)
    acks = Acks(1, 1, COUNT)
    async with open_bus(place, acks, metrics=True) as bus, bus.running(handle):
        victim.kill()
        killed = time.monotonic()
        await acks.done.wait()
        taken = time.monotonic() - killed
    victim.join()
    return {"recovery": taken}


def _hang(place: Place) -> None:
    run_on(place.loop, _hang_in_handler(place))


async def _hang_in_handler(place: Place) -> None:
    @consumer(group="bench")
    async def hang(_event: Event[Benched]) -> None:
        await asyncio.Event().wait()

    async with open_bus(place) as bus, bus.running(hang):
        await asyncio.Event().wait()


async def _wait_for_pending(place: Place) -> None:
    """Wait until what is pending grows no more."""
    before = 0
    with Bare(place.host, place.port) as bare:
        while True:
            await asyncio.sleep(_PAUSE * 10 if before else _PAUSE)
            (pending,) = bare.ask(pack("XPENDING", STREAM, "bench"))
            if before and pending[0] == before:
                return
            before = pending[0]


QUESTIONS = (
    Question(
        "recovery",
        measure,
        (Figure("recovery", "recovery after SIGKILL", "s", bars=(Bar(3, at_most=True),)),),
    ),
)
