"""How fast is a program that awaits each `publish` before the next?"""

from __future__ import annotations

import time

from benchmarks.form import Depth
from benchmarks.question import Figure, Place, Question, Values
from benchmarks.workload import data, open_bus
from hyperbus.supervisor.worker_process.garbage_collector import calm_collector


async def measure(place: Place) -> Values:
    """Await one publish after the other."""
    count = place.events(10_000)
    async with open_bus(place) as bus:
        await bus.publish(data())
        calm_collector()
        started = time.perf_counter()
        for number in range(count):
            await bus.publish(data(number), workflow_id="wf-000001")
        return {"publish_one": count / (time.perf_counter() - started)}


QUESTIONS = (
    Question(
        "publish_one",
        measure,
        (Figure("publish_one", "publish, one by one", against=("bare_publish_one",)),),
        Depth.QUICK,
    ),
)
