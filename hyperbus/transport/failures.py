"""The contract of what went wrong: delivery counts, retries, dead letters, and entries suspected of killing workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hyperbus.transport.entries import FIRST_ID, DeadLetter


class Failures(Protocol):
    """What is known of pending entries whose handler failed, and of those that were given up."""

    async def set_delivery_counts(
        self, stream: str, group: str, consumer: str, counts: Sequence[tuple[bytes, int]]
    ) -> list[bool]:
        """Write the delivery count of entries that `consumer` still owns; tell which. Atomic for each entry.

        Their idle time starts again, as in all that writes a count.
        """
        ...

    async def schedule_retries(
        self, stream: str, group: str, consumer: str, retries: Sequence[tuple[bytes, int, float]]
    ) -> list[bool]:
        """Write (id, delivery count, due time) of pending entries that `consumer` still owns; tell which.

        The due time is in seconds since the epoch; an entry that is scheduled again gets the new one. A server out
        of memory still takes this. Schedules of entries that are no longer pending are dropped in passing, a few at
        a time, so that those of acked entries do not pile up. Atomic for each entry.
        """
        ...

    async def retry_times(self, stream: str, group: str, ids: Sequence[bytes]) -> list[float | None]:
        """Return when each entry is due, None for one that has no schedule."""
        ...

    async def forget_retries(self, stream: str, group: str, ids: Sequence[bytes]) -> int:
        """Drop the schedules of entries, as after an ack; return how many there were."""
        ...

    async def retry_counts(self, groups: Sequence[tuple[str, str]]) -> list[int]:
        """Return how many schedules each (stream, group) has: about as many pending entries wait for their next try."""
        ...

    async def dead_letter_counts(self, groups: Sequence[tuple[str, str]]) -> list[int]:
        """Return how many dead letters each (stream, group) has."""
        ...

    async def dead_letter(self, stream: str, group: str, consumer: str, letters: Sequence[DeadLetter]) -> list[bool]:
        """Append to the group's dead letters and ack, atomically, where `consumer` still owns the entry; tell which."""
        ...

    async def dead_letters(
        self, stream: str, group: str, *, after: bytes = FIRST_ID, count: int = 100
    ) -> list[tuple[bytes, DeadLetter]]:
        """Return the group's dead letters with their own ids, oldest first."""
        ...

    async def suspect(self, stream: str, group: str, ids: Sequence[bytes]) -> list[int]:
        """Count that each entry is begun alone; return how often it was, this time included.

        A server out of memory still takes this. What is known of a group's suspects is forgotten a week after the
        last of them was counted.
        """
        ...

    async def clear_suspects(self, stream: str, group: str, ids: Sequence[bytes]) -> int:
        """Forget that entries were begun alone; return how many were known."""
        ...

    async def suspicions(self, stream: str, group: str, ids: Sequence[bytes]) -> list[int]:
        """Return how often each entry was begun alone."""
        ...

    async def count_deaths(self, stream: str, group: str, ids: Sequence[bytes]) -> list[int]:
        """Count that each entry was claimed from a worker that had died; return how often it was, this time included.

        Counts are kept for a week after the last one.
        """
        ...

    async def deaths(self, stream: str, group: str, ids: Sequence[bytes]) -> list[int]:
        """Return how often each entry was claimed from a worker that had died."""
        ...

    async def forget_deaths(self, stream: str, group: str, ids: Sequence[bytes]) -> int:
        """Forget that entries were claimed from workers that had died; return how many were known."""
        ...
