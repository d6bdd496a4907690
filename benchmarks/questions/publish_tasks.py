"""How fast are 256 tasks, each of which awaits its own `publish`?"""

from __future__ import annotations

import asyncio
import time

from benchmarks.form import Depth
from benchmarks.question import Bar, Figure, Place, Question, Values
from benchmarks.workload import BATCH, data, open_bus
from hyperbus.supervisor.worker_process.garbage_collector import calm_collector

TASKS = 256


async def rate(place: Place, *, once: bool = False) -> float:
    """Return events a second."""
    each = place.events(60_000) // TASKS
    async with open_bus(place) as bus:
        await bus.publish_many([data()] * BATCH, once=once)
        calm_collector()

        async def publish() -> None:
            for number in range(each):
                await bus.publish(data(number), workflow_id="wf-000001", once=once)

        started = time.perf_counter()
        await asyncio.gather(*[publish() for _ in range(TASKS)])
        return each * TASKS / (time.perf_counter() - started)


async def measure(place: Place) -> Values:
    """256 tasks at once."""
    return {"publish_tasks": await rate(place)}


QUESTIONS = (
    Question(
        "publish_tasks",
        measure,
        (
            Figure(
                "publish_tasks",
                "publish, 256 tasks",
                bars=(Bar(0.25, of="bare_publish"), Bar(12, of="faststream.publish_tasks")),
            ),
        ),
        Depth.QUICK,
    ),
)
