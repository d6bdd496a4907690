"""The contract of reads that wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from hyperbus.clock import Seconds
from hyperbus.transport.entries import Entry, Read


class Reader(Protocol):
    """A connection of its own for reads that wait. One reader is used by one task at a time, but for `wake`.

    After `BusUnavailable` from `read_group` it is not known whether entries were delivered: the caller asks
    `read_pending` what it holds. The reader connects again by itself at its next use.
    """

    async def read_group(
        self, group: str, consumer: str, streams: Sequence[str], *, count: int, block: Seconds
    ) -> Read:
        """Deliver new entries to `consumer` (XREADGROUP >), at most `count` a stream.

        Waits up to `block` seconds for the first; returns [] when there was none, or when woken. `block=0`
        does not wait.

        Raises:
            GroupNotFoundError: a stream or its group is missing; nothing was delivered.
            WrongTypeError: a key is not a stream; nothing was delivered.
        """
        ...

    async def read_pending(self, group: str, consumer: str, stream: str, *, after: bytes, count: int) -> list[Entry]:
        """Return what `consumer` holds pending with an id above `after`, oldest first, at most `count`.

        Raises the delivery count, as the server does. An entry deleted meanwhile has no fields, and its count stays.
        """
        ...

    async def read(self, positions: Mapping[str, bytes], *, count: int, block: Seconds) -> Read:
        """Return entries above a position in each stream (XREAD), at most `count` a stream; waits like `read_group`.

        A stream that does not exist yet is waited for.
        """
        ...

    async def wake(self) -> None:
        """Make a blocked read return now with []; at worst it returns when its `block` is over. Never raises."""
        ...

    async def close(self) -> None:
        """Close the connection; a blocked read raises `BusUnavailable`."""
        ...
