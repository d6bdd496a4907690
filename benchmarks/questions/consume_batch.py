"""How fast are events consumed by a handler that takes up to 500 of them?"""

from __future__ import annotations

from benchmarks.form import Depth
from benchmarks.question import Bar, Figure, Place, Question, Values
from benchmarks.workload import BATCH, Benched, consume_rate
from hyperbus import Event, consumer


@consumer(group="bench", batch=BATCH)
async def handle(_events: list[Event[Benched]]) -> None:
    """Do nothing."""


async def measure(place: Place) -> Values:
    """One batch at a time."""
    return {"consume_batch": await consume_rate(place, handle, count=place.events(200_000))}


QUESTIONS = (
    Question(
        "consume_batch",
        measure,
        (
            Figure(
                "consume_batch",
                "consume, batches of 500",
                against=("bare_consume_plain",),
                bars=(Bar(0.8, of="bare_consume"), Bar(6, of="faststream.consume_batch")),
            ),
        ),
        Depth.QUICK,
    ),
)
