"""Counts every event by type for Prometheus: hyperbus_events_total{type}."""

from __future__ import annotations

from hyperbus import Consumer, Event, consumer
from hyperbus.sinks.metrics import EventCounter


@consumer(group="metrics_collectors", types=["*"], batch=500, linger=0.005)
class MetricsCollector(Consumer):
    """One addition a type and batch, never one an event."""

    def __init__(self, counter: EventCounter | None = None) -> None:
        self.counter = counter

    async def start(self) -> None:
        """Join the registry."""
        self.counter = self.counter or EventCounter()

    async def handle(self, events: list[Event]) -> None:
        """Count a batch."""
        if self.counter is not None:
            self.counter.add(events)

    async def stop(self) -> None:
        """Leave the registry."""
        if self.counter is not None:
            self.counter.close()
            self.counter = None
