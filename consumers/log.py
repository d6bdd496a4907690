"""Sums events up in the log: one line every few seconds."""

from __future__ import annotations

from hyperbus import Consumer, Event, consumer
from hyperbus.sinks.log import EventLog


@consumer(group="log_aggregators", types=["*"], batch=500, linger=0.005)
class LogAggregator(Consumer):
    """Counts by type, so that the log stays readable however much happens."""

    def __init__(self, log: EventLog | None = None) -> None:
        self.log = log or EventLog()

    async def start(self) -> None:
        """Begin the first interval."""
        await self.log.start()

    async def handle(self, events: list[Event]) -> None:
        """Count a batch."""
        self.log.add(events)

    async def stop(self) -> None:
        """Log what is left."""
        await self.log.stop()
