"""How fast is a program without an event loop, which publishes through `SyncPublisher`?"""

from __future__ import annotations

import time

from benchmarks.question import Figure, Place, Question, Values
from benchmarks.workload import BATCH, data, event
from hyperbus import SyncPublisher
from hyperbus.settings import Settings
from hyperbus.supervisor.worker_process.garbage_collector import calm_collector


def measure(place: Place) -> Values:
    """One by one, and 500 at a time."""
    alone, together = place.events(10_000), place.events(200_000)
    events = [event(number) for number in range(together)]
    with SyncPublisher(place.url, settings=Settings()) as publisher:
        publisher.publish(data())
        calm_collector()
        started = time.perf_counter()
        for number in range(alone):
            publisher.publish(data(number), workflow_id="wf-000001")
        between = time.perf_counter()
        for start in range(0, together, BATCH):
            publisher.publish_many(events[start : start + BATCH])
        ended = time.perf_counter()
    return {"sync_one": alone / (between - started), "sync_many": together / (ended - between)}


QUESTIONS = (
    Question(
        "publish_sync",
        measure,
        (
            Figure("sync_one", "SyncPublisher, one by one", against=("bare_publish_one",), loop="asyncio"),
            Figure("sync_many", "SyncPublisher, 500 at a time", against=("bare_publish",), loop="asyncio"),
        ),
    ),
)
