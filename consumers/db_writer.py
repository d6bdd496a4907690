"""Writes every event into the table workflow_updates of HYPERBUS_DATABASE_URL (SQLite or PostgreSQL)."""

from __future__ import annotations

from hyperbus import Consumer, Delivery, Event, consumer
from hyperbus.sinks.database import Database, database_from_settings, row_of


@consumer(group="db_writers", types=["*"], batch=500, linger=0.005)
class DbWriter(Consumer):
    """One transaction a batch. An event that comes again changes nothing; one that fails is tried again by the bus."""

    def __init__(self, database: Database | None = None) -> None:
        self.database = database or database_from_settings()

    async def start(self) -> None:
        """Connect, and create the table where it is missing."""
        await self.database.start()

    async def handle(self, events: list[Event], deliveries: list[Delivery]) -> None:
        """Write a batch."""
        await self.database.write([row_of(*pair) for pair in zip(events, deliveries, strict=True)])

    async def stop(self) -> None:
        """Close the connection."""
        await self.database.stop()
