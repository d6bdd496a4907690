"""What a database has to do for the bus, and the row it is given."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from hyperbus.errors import HyperbusError

#: The one table.
TABLE = "workflow_updates"


class DatabaseError(HyperbusError):
    """The database cannot be reached or refused. Nothing of the batch was written; writing it again is safe."""


class Row(NamedTuple):
    """One event in the table, keyed by its id. `data` is JSON; both times are aware, UTC.

    `group` is no column: with the event's id it is the row's mark in `hyperbus_done`.
    """

    event_id: str
    type: str
    workflow_id: str | None
    timestamp: datetime
    source_agent: str | None
    data: str
    entry_id: str
    stream: str
    written_at: datetime
    group: str


class Database(Protocol):
    """A place for rows. Used by one event loop."""

    async def start(self) -> None:
        """Connect, and create the table where it is missing.

        Raises:
            DatabaseError: the database cannot be reached.
        """
        ...

    async def write(self, rows: Sequence[Row]) -> int:
        """Write rows and their marks in one transaction; return how many rows are new.

        Skipped are a row whose event its group has done (see `once`), also when the row was deleted since, and a row
        whose event id is there already. All rows of a batch are of one group.

        Raises:
            DatabaseError: nothing was written, or it is not known; write the same rows again.
        """
        ...

    async def stop(self) -> None:
        """Close the connection."""
        ...
