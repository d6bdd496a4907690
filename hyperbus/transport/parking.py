"""The contract of parking: entries that wait longer than a pending list should hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hyperbus.clock import Seconds
from hyperbus.transport.entries import DeadLetter, Parked


class Parking(Protocol):
    """Entries with their bytes, moved out of the pending list until they are due.

    Whoever takes one holds it for a lease; after that another may take it. What a holder asks is done only while
    nobody else has taken the entry. Times are in seconds since the epoch, by the caller's clock.
    """

    async def park(self, stream: str, group: str, consumer: str, parked: Sequence[Parked]) -> list[bool]:
        """Store entries that `consumer` still owns, and ack them, atomically for each; tell which.

        A server out of memory refuses: False, and the entry stays pending with its owner. `schedule_retries` tells
        that case from a lost entry, and is what is left to do in it.
        """
        ...

    async def take_parked(
        self, stream: str, group: str, holder: str, *, now: float, lease: Seconds, count: int
    ) -> list[Parked]:
        """Take up to `count` entries that are due, earliest first, and hide them from others for `lease` seconds.

        There may be more when it returns fewer, as it is bounded by bytes too; there are none when it returns none.
        A server out of memory still does this, so that what waits can be done with.
        """
        ...

    async def renew_parked(
        self, stream: str, group: str, holder: str, ids: Sequence[bytes], *, now: float, lease: Seconds
    ) -> list[bool]:
        """Hide entries for another `lease` seconds from `now`, where `holder` still has them; tell which."""
        ...

    async def finish_parked(self, stream: str, group: str, holder: str, ids: Sequence[bytes]) -> list[bool]:
        """Remove entries that are done with, where `holder` still has them; tell which."""
        ...

    async def reschedule_parked(
        self, stream: str, group: str, holder: str, changes: Sequence[tuple[bytes, int, float]]
    ) -> list[bool]:
        """Give back entries with (id, tries, due), where `holder` still has them; tell which.

        With the tries and the due time they had, this hands them to whoever asks next.
        """
        ...

    async def dead_letter_parked(
        self, stream: str, group: str, holder: str, letters: Sequence[DeadLetter]
    ) -> list[bool]:
        """Move entries to the group's dead letters, atomically, where `holder` still has them; tell which."""
        ...

    async def parked_count(self, groups: Sequence[tuple[str, str]]) -> list[int]:
        """Return how many entries each (stream, group) has parked, those that are held included."""
        ...

    async def next_parked(self, groups: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return when the next entry of each (stream, group) can be taken: due, or its lease over; None for none."""
        ...
