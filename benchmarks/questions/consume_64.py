"""How fast are events consumed 64 at once: by handlers that do nothing, and by handlers that wait 1 ms?"""

from __future__ import annotations

import asyncio

from benchmarks.form import Depth
from benchmarks.question import Bar, Figure, Place, Question, Values
from benchmarks.questions.ceilings import PAUSE, WAITING
from benchmarks.workload import Benched, consume_rate
from hyperbus import Event, consumer


@consumer(group="bench", concurrency=WAITING)
async def handle(_event: Event[Benched]) -> None:
    """Do nothing."""


@consumer(group="bench", concurrency=WAITING)
async def wait(_event: Event[Benched]) -> None:
    """Wait 1 ms."""
    await asyncio.sleep(PAUSE)


async def measure_idle(place: Place) -> Values:
    """Handlers that do nothing."""
    return {"consume_64": await consume_rate(place, handle, count=place.events(150_000))}


async def measure_waiting(place: Place) -> Values:
    """Handlers that wait."""
    return {"consume_64_waiting": await consume_rate(place, wait, count=place.events(40_000))}


QUESTIONS = (
    Question(
        "consume_64",
        measure_idle,
        (
            Figure(
                "consume_64",
                "consume, 64 at once, no-op",
                against=("bare_consume_plain",),
                bars=(Bar(0.5, of="bare_consume"),),
            ),
        ),
        Depth.QUICK,
    ),
    Question(
        "consume_64_waiting",
        measure_waiting,
        (Figure("consume_64_waiting", "consume, 64 at once, 1 ms each", bars=(Bar(0.85, of="bare_sleep"),)),),
        Depth.QUICK,
    ),
)
