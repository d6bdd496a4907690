"""A handler that takes a list gets whole batches: one transaction for many events."""

from __future__ import annotations

import asyncio

from hyperbus import Bus, Consumer, Event, EventData, consumer


class Measured(EventData, type="sensor.measured"):
    """A sensor measured something."""

    value: float


@consumer(group="rollups", batch=500, linger=0.05)
class RollUp(Consumer):
    """Sums up. `start` and `stop` are called once a worker: open connections there."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.count = 0
        self.total = 0.0
        self.done = asyncio.Event()

    async def handle(self, events: list[Event[Measured]]) -> None:
        """Add a batch. Returning acks all of it; raising retries all of it."""
        self.count += len(events)
        self.total += sum(event.data.value for event in events)
        if self.count >= self.wanted:
            self.done.set()


async def main() -> None:
    """Publish a thousand events in two round trips, and sum them up."""
    roll_up = RollUp(wanted=1000)
    async with Bus("memory://") as bus, bus.running(roll_up):
        await bus.publish_many([Measured(value=number / 1000) for number in range(1000)])
        await roll_up.done.wait()
    print(f"{roll_up.count} events, {roll_up.total:.1f} in all")


asyncio.run(main())
