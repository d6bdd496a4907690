"""The contract of streams: all its parts, and what can be seen of a stream itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hyperbus.transport.appends import Appends
from hyperbus.transport.entries import FIRST_ID, Entry, StreamInfo
from hyperbus.transport.failures import Failures
from hyperbus.transport.groups import Groups
from hyperbus.transport.parking import Parking
from hyperbus.transport.retention import Retention


class Streams(Appends, Groups, Failures, Parking, Retention, Protocol):
    """Streams and their groups."""

    async def range(self, stream: str, *, after: bytes = FIRST_ID, count: int = 100) -> list[Entry]:
        """Return entries with an id above `after`, oldest first (XRANGE)."""
        ...

    async def last_ids(self, streams: Sequence[str]) -> list[bytes]:
        """Return the highest id each stream ever gave out; `FIRST_ID` for one that does not exist."""
        ...

    async def info(self, streams: Sequence[str]) -> list[StreamInfo | None]:
        """Return the state of each stream; None for one that does not exist."""
        ...

    async def scan(self, pattern: str) -> list[str]:
        """Return every stream whose key matches a glob of the server's (SCAN); many round trips, none of them long."""
        ...
