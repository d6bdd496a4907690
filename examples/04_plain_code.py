"""Publish from code without an event loop, and read the history afterwards, on an embedded server."""

from __future__ import annotations

import asyncio

from hyperbus import Bus, EventData, SyncPublisher


class JobDone(EventData, type="job.done"):
    """A job ended."""

    name: str


async def read(wanted: int) -> None:
    """Read what is stored, from the first entry, without a group and without acks."""
    async with Bus("embedded://.hyperbus") as bus:
        async for event in bus.read(JobDone):
            print(event.source_agent, event.data.name)
            wanted -= 1
            if not wanted:
                return


with SyncPublisher("embedded://.hyperbus", source_agent="nightly") as publisher:
    for name in ("backup", "report"):
        publisher.publish(JobDone(name=name))
asyncio.run(read(2))
