"""How often an entry was begun alone, or taken late, or claimed and not begun since, as the server counts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from hyperbus.errors import HyperbusError
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.received import Received
from hyperbus.transport import Streams

#: Deliveries up to which an entry is no suspect: its first, and the one after its first worker died.
INNOCENT = 2


class StartCounts:
    """Counts, on the server, how often entries of one group were begun under suspicion."""

    def __init__(self, streams: Streams, name: str) -> None:
        self._streams = streams
        self._name = name

    @classmethod
    def of_group(cls, member: Member) -> Self:
        """Return the counts of entries that were begun alone in their process."""
        return cls(member.streams, member.group)

    @classmethod
    def of_takings(cls, member: Member) -> Self:
        """Return the counts of parked entries that were taken late; kept apart, as no group has a colon in its name."""
        return cls(member.streams, f"{member.group}:parked")

    @classmethod
    def of_unbegun(cls, member: Member) -> Self:
        """Return the counts of entries of an ordered group that were claimed, and that nobody has begun since."""
        return cls(member.streams, f"{member.group}:unbegun")

    async def known(self, stream: str, ids: Sequence[bytes]) -> list[int]:
        """Return how many starts of each entry are counted.

        Raises:
            HyperbusError: the server is away or refuses.
        """
        return await self._streams.suspicions(stream, self._name, ids)

    async def clear(self, received: Received) -> bool:
        """Forget an entry that was handled, or judged, and killed nobody; tell whether the server has heard."""
        try:
            await self.forget(received.stream, [received.id])
        except HyperbusError:
            return False  # what is left counts against it only if its process dies again, and is forgotten in the end
        return True

    async def count(self, stream: str, ids: Sequence[bytes]) -> list[int]:
        """Count a start of each entry; return how many there were, this one included.

        Raises:
            HyperbusError: the server is away or refuses; it was perhaps counted.
        """
        return await self._streams.suspect(stream, self._name, ids)

    async def forget(self, stream: str, ids: Sequence[bytes]) -> None:
        """Forget the starts of entries.

        Raises:
            HyperbusError: the server is away or refuses.
        """
        await self._streams.clear_suspects(stream, self._name, ids)
