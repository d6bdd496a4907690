"""The contract of how much is kept: what groups are done with, what a stream holds, and cutting it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hyperbus.transport.entries import Position


class Retention(Protocol):
    """Checkpoints of groups, and the length and weight of streams.

    The floor of a group is the id up to which everything, itself included, is acked: the one just below the oldest
    pending entry, or the last delivered one when nothing is pending.
    """

    async def floors(self, stream: str) -> dict[str, bytes]:
        """Return the floor of every group on a stream; {} for a stream that does not exist."""
        ...

    async def save_checkpoints(self, groups: Sequence[tuple[str, str]]) -> list[bytes | None]:
        """Store the floor of each (stream, group) as its checkpoint, and return the checkpoint; None: no such group.

        A checkpoint is never lowered, unless the stream was made anew: then it lies above the stream's last id. A
        server out of memory still takes this.
        """
        ...

    async def checkpoints(self, groups: Sequence[tuple[str, str]]) -> list[bytes | None]:
        """Return the checkpoint of each (stream, group), also of a group that is gone; None where none was saved.

        Whatever else lies there, for anybody can write to it, counts as none.
        """
        ...

    async def trim(self, stream: str, *, up_to: bytes, limit: int) -> int:
        """Delete entries with an id up to `up_to`, oldest first, pending or not; return how many.

        It deletes about `limit` at most, so that no call is long; a limit below 1,000 counts as 1,000. When it
        returns 0, there is nothing left to delete.
        """
        ...

    async def remove_ended(self, stream: str, last_id: bytes, groups: Sequence[str]) -> bool:
        """Remove a stream in which nothing is left, with all that is kept for these groups but their dead letters.

        Only where it is empty, nothing is pending or parked, and nothing has been added since it had given out
        `last_id`; tell whether it is gone. Atomic.
        """
        ...

    async def oldest(self, streams: Sequence[str]) -> list[bytes | None]:
        """Return the id of the oldest entry of each stream; None where there is none."""
        ...

    async def count_between(self, stream: str, after: bytes, up_to: bytes, limit: int) -> int:
        """Count entries above `after`, up to `up_to`, and no further than `limit`; many round trips, none long."""
        ...

    async def positions(self, group: str, streams: Sequence[str]) -> list[Position | None]:
        """Return how far a group is on each stream; None where the stream or the group is missing, or is none."""
        ...

    async def stream_bytes(self, streams: Sequence[str]) -> list[int]:
        """Return about how many bytes each stream takes, its groups included (MEMORY USAGE); 0 for a missing one."""
        ...

    async def eviction_policy(self) -> tuple[str, int] | None:
        """Return what the server does at its memory limit, and the limit in bytes (0: none); None: it does not tell."""
        ...
