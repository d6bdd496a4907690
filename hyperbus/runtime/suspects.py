"""What is known of entries that may kill their process, and when one is judged."""

from __future__ import annotations

from hyperbus.errors import HyperbusError
from hyperbus.runtime.inbox import Received
from hyperbus.transport import Streams

#: Deaths of a process while an entry ran alone in it, after which the entry is not begun again.
MOST_DEATHS = 2
#: Deliveries up to which an entry is no suspect: its first, and the one after its first worker died.
INNOCENT = 2


class PoisonError(HyperbusError):
    """An entry killed the process that handled it, each time it ran alone."""


class Suspects:
    """Counts, on the server, how often entries of one group were begun alone."""

    def __init__(self, streams: Streams, group: str) -> None:
        self._streams = streams
        self._group = group

    async def begin(self, received: Received) -> PoisonError | None:
        """Count that an entry is begun alone; return the judgement where it died too often before.

        Raises:
            HyperbusError: the server is away or refuses; it was perhaps counted.
        """
        (begun,) = await self._streams.suspect(received.stream, self._group, [received.id])
        if begun <= MOST_DEATHS:
            return None
        return PoisonError(f"the process died {MOST_DEATHS} times while this entry ran alone in it")

    async def clear(self, received: Received) -> None:
        """Forget an entry that was handled, or judged, and killed nobody."""
        try:
            await self._streams.clear_suspects(received.stream, self._group, [received.id])
        except HyperbusError:
            return  # what is left counts against it only if its process dies again, and is forgotten in the end
