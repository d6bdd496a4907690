"""What a worker holds of a server that may have lost its tail: ids may have been given out again, to other events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from hyperbus.transport import Transport


class Era:
    """The era of the server that a worker's entries are of, and those of older eras that are its own no longer.

    While an era is over, and what is held was not compared with the server yet (`begin`), nothing is read, claimed or
    acked: an id alone says nothing then. What meets the end of an era is not sent: asking before is enough.

    Attributes:
        current: the era that entries which come in now are of.
    """

    def __init__(self, transport: Transport | None = None) -> None:
        self._transport = transport
        self.current = self.latest
        #: Entries that are disowned, and the era before which they came in.
        self._disowned: dict[tuple[str, bytes], int] = {}
        self._asked = asyncio.Event()
        self._begun = asyncio.Event()

    @property
    def latest(self) -> int:
        """The server's own count."""
        return 0 if self._transport is None else self._transport.era

    @property
    def is_over(self) -> bool:
        """Whether the server may have lost what this worker holds."""
        return self.latest != self.current

    @property
    def has_disowned(self) -> bool:
        """Whether there is anything that `disowns` may be true of."""
        return bool(self._disowned)

    def begin(self, era: int, disowned: Mapping[str, Iterable[bytes]]) -> None:
        """Begin an era: these entries, by stream, are not this worker's any more, whatever becomes of them here."""
        self.current = era
        self._begun.set()
        for stream, ids in disowned.items():
            self._disowned.update(((stream, entry_id), era) for entry_id in ids)

    async def begun(self) -> None:
        """Have what is held compared with the server, and wait until it is."""
        while self.is_over:
            self._begun.clear()
            self._asked.set()
            await self._begun.wait()

    async def asked(self) -> None:
        """Wait until somebody waits for the next era to begin."""
        await self._asked.wait()
        self._asked.clear()

    def disowns(self, stream: str, entry_id: bytes, era: int) -> bool:
        """Tell whether what came in as this entry is not this worker's: the id may be another event's by now."""
        until = self._disowned.get((stream, entry_id))
        return until is not None and era < until

    def forget(self, stream: str, entry_id: bytes) -> None:
        """Hear that what was disowned has ended."""
        self._disowned.pop((stream, entry_id), None)
