"""The contract of everything that is not an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from hyperbus.clock import Seconds


class Records(Protocol):
    """Small things with a life of their own: heartbeats, leases, directories. Names are relative to the prefix."""

    async def put(self, name: str, value: bytes, *, ttl: Seconds | None = None) -> None:
        """Store a value, for `ttl` seconds if given."""
        ...

    async def renew(self, names: Sequence[str], *, ttl: Seconds) -> list[bool]:
        """Let records live for another `ttl` seconds; False for one that is gone. A full server still takes this."""
        ...

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the values; None for a record that is gone."""
        ...

    async def lifetimes(self, names: Sequence[str]) -> tuple[float, list[float | None]]:
        """Return the server's time, and when each record ends; inf for one that stays, None for one that is gone.

        Both are seconds since the epoch, by the server's clock.
        """
        ...

    async def delete(self, names: Sequence[str]) -> int:
        """Delete records; return how many there were."""
        ...

    async def compare_and_set(
        self, name: str, expected: bytes | None, value: bytes | None, *, ttl: Seconds | None = None
    ) -> bool:
        """Store `value` if the record holds `expected` (None: is not there); a `value` of None deletes. Atomic."""
        ...

    async def add_members(self, name: str, members: Mapping[str, float]) -> int:
        """Add members with their times to a sorted set; those that are there keep theirs. Return how many were new."""
        ...

    async def members(
        self,
        name: str,
        *,
        minimum: float = float("-inf"),
        maximum: float = float("inf"),
        count: int = 1000,
        offset: int = 0,
        newest: bool = False,
    ) -> list[tuple[str, float]]:
        """Return members whose time lies between the two, both included, earliest first; at most `count`.

        Leaves out the first `offset`; with `newest` the order is the other way round.

        What is no text (UTF-8) is left out, as no name of ours is like that; others may write there.
        """
        ...

    async def touch_members(self, name: str, members: Sequence[str], quiet: Seconds) -> int:
        """Add members with the server's time now, or give it to those that are there. Atomic.

        Return how many of them were new, or had not been touched for `quiet` seconds.
        """
        ...

    async def remove_members(self, name: str, members: Sequence[str], *, maximum: float = float("inf")) -> int:
        """Remove those of these members whose time is not above `maximum`; return how many there were. Atomic."""
        ...

    async def server_time(self) -> float:
        """Return the server's clock, seconds since the epoch."""
        ...
