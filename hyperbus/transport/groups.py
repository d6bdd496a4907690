"""The contract of groups: who is in them, what is pending with whom, and how it changes hands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hyperbus.transport.entries import FIRST_ID, Entry, PendingEntry, PendingSummary


class Groups(Protocol):
    """Groups, their consumers and their pending lists."""

    async def create_groups(self, groups: Sequence[tuple[str, str, bytes]]) -> list[bool]:
        """Create (stream, group, after this id) where missing, with the stream; tell which were created (XGROUP)."""
        ...

    async def destroy_group(self, stream: str, group: str) -> bool:
        """Remove a group for good, with its pending list and all that is kept for it but its dead letters.

        That is its checkpoint, its retries, its parked entries and its suspicions. Tells whether the group was there.
        Many round trips where much is pending, none of them long; broken off, it has removed a part of that.
        """
        ...

    async def consumers(self, groups: Sequence[tuple[str, str]]) -> list[list[str]]:
        """Return the names of all consumers of each (stream, group), busy or not; [] where either is missing."""
        ...

    async def remove_consumer(self, group: str, consumer: str, streams: Sequence[str]) -> int:
        """Remove `consumer` from its group where it has nothing pending; return from how many. Atomic, by a script."""
        ...

    async def ack(self, acks: Sequence[tuple[str, str, Sequence[bytes]]]) -> list[int]:
        """Ack (stream, group, ids); return how many of the ids were still pending (XACK). Asking twice is safe."""
        ...

    async def pending_summaries(self, groups: Sequence[tuple[str, str]]) -> list[PendingSummary]:
        """Return the summary of each (stream, group); an empty one where either is missing (XPENDING)."""
        ...

    async def pending(
        self,
        stream: str,
        group: str,
        *,
        consumer: str | None = None,
        after: bytes = FIRST_ID,
        count: int = 100,
    ) -> list[PendingEntry]:
        """Return pending entries with an id above `after`, oldest first; [] where the group is missing (XPENDING)."""
        ...

    async def claim(
        self, stream: str, group: str, consumer: str, ids: Sequence[bytes], *, owner: str, in_order: bool = False
    ) -> list[tuple[Entry, int]]:
        """Take over those of `ids` that `owner` still holds; return each with its delivery count, which rises by one.

        Entries that were deleted meanwhile leave the pending list and are not returned. Atomic for each entry, by a
        script; `in_order` for all of them, which ends at the first that somebody else holds. Ask for few then.
        """
        ...

    async def hand_over(
        self, stream: str, group: str, consumer: str, to: str, counts: Sequence[tuple[bytes, int]]
    ) -> list[bool]:
        """Give entries that `consumer` still owns to the consumer `to`, with these delivery counts; tell which.

        Entries that were deleted meanwhile leave the pending list: False. Atomic for each entry.
        """
        ...
