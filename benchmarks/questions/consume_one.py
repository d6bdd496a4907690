"""How fast are events consumed in order, by one awaited handler an event: typed, acked, metrics on?"""

from __future__ import annotations

from benchmarks.form import Depth
from benchmarks.question import Bar, Figure, Place, Question, Values
from benchmarks.workload import Benched, consume_rate
from hyperbus import Event, consumer


@consumer(group="bench")
async def handle(_event: Event[Benched]) -> None:
    """Do nothing."""


async def measure(place: Place) -> Values:
    """One handler at a time."""
    return {"consume_one": await consume_rate(place, handle, count=place.events(200_000))}


QUESTIONS = (
    Question(
        "consume_one",
        measure,
        (
            Figure(
                "consume_one",
                "consume, one handler an event",
                against=("bare_consume_plain",),
                bars=(Bar(0.8, of="bare_consume"), Bar(50, of="faststream.consume_one")),
            ),
        ),
        Depth.QUICK,
    ),
)
