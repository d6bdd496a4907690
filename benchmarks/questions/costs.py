"""What do metrics, an order by key and `once=True` cost? Each against the same without it."""

from __future__ import annotations

from benchmarks.question import Figure, Place, Question, Values
from benchmarks.questions import publish_many, publish_tasks
from benchmarks.questions.ceilings import WAITING
from benchmarks.questions.consume_one import handle
from benchmarks.workload import Benched, consume_rate, event
from hyperbus import Event, consumer

#: How many workflows there are, of which each is kept in order.
WORKFLOWS = 100


@consumer(group="bench", concurrency=WAITING, order_by="workflow_id")
async def handle_in_order(_event: Event[Benched]) -> None:
    """Do nothing."""


async def without_metrics(place: Place) -> Values:
    """One handler an event, nobody who counts."""
    return {"without_metrics": await consume_rate(place, handle, count=place.events(200_000), metrics=False)}


async def ordered(place: Place) -> Values:
    """64 at once, each workflow in order."""
    events = [event(number) for number in range(WORKFLOWS)]
    return {"ordered": await consume_rate(place, handle_in_order, count=place.events(150_000), events=events)}


async def once(place: Place) -> Values:
    """Repeats add nothing."""
    many = [event(number) for number in range(place.events(100_000))]
    return {
        "once_many": await publish_many.rate(place, many, once=True),
        "once_tasks": await publish_tasks.rate(place, once=True),
    }


QUESTIONS = (
    Question(
        "cost_of_metrics",
        without_metrics,
        (Figure("without_metrics", "one handler an event, no metrics", against=("consume_one",)),),
    ),
    Question(
        "cost_of_order",
        ordered,
        (Figure("ordered", "64 at once, 100 workflows in order", against=("consume_64",)),),
    ),
    Question(
        "cost_of_once",
        once,
        (
            Figure("once_many", "publish_many, once", against=("publish_many",)),
            Figure("once_tasks", "publish, 256 tasks, once", against=("publish_tasks",)),
        ),
    ),
)
