"""How fast is `publish_many`, 500 typed events at a time?

The events are made before, as the bare socket's commands are. "with new envelopes" hands over bare data, so that ids
and timestamps are made meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.form import Depth
from benchmarks.question import Bar, Figure, Place, Question, Values
from benchmarks.workload import BATCH, Benched, data, event, open_bus
from hyperbus import Event
from hyperbus.supervisor.worker_process.garbage_collector import calm_collector


async def rate(place: Place, events: Sequence[Event[Benched] | Benched], *, once: bool = False) -> float:
    """Return events a second."""
    async with open_bus(place) as bus:
        await bus.publish_many([event(-1)] * BATCH, once=once)
        calm_collector()
        started = time.perf_counter()
        for start in range(0, len(events), BATCH):
            await bus.publish_many(events[start : start + BATCH], once=once)
        return len(events) / (time.perf_counter() - started)


async def measure(place: Place) -> Values:
    """Publish events, and then data."""
    count = place.events(200_000)
    return {
        "publish_many": await rate(place, [event(number) for number in range(count)]),
        "publish_many_data": await rate(place, [data(number) for number in range(count)]),
    }


QUESTIONS = (
    Question(
        "publish_many",
        measure,
        (
            Figure(
                "publish_many",
                "publish_many, 500 at a time",
                bars=(Bar(0.65, of="bare_publish"), Bar(35, of="faststream.publish_one")),
            ),
            Figure("publish_many_data", "publish_many with new envelopes", against=("bare_publish",)),
        ),
        Depth.QUICK,
    ),
)
