"""Whether one memory transport is closed. Every call passes through it, as it would through a connection."""

from __future__ import annotations

import asyncio

from hyperbus.errors import BusUnavailable
from hyperbus.transports.memory.store import Store


class Session:
    """The state that a transport shares with its streams, records and readers."""

    def __init__(self, store: Store) -> None:
        self.is_closed = False
        self._store = store

    async def enter(self) -> None:
        """Let other tasks run once, as every round trip does.

        Raises:
            BusUnavailable: the transport is closed, or its data was lost meanwhile.
        """
        era = self._store.era
        await asyncio.sleep(0)
        if self._store.era != era:
            raise BusUnavailable("memory:// has lost its latest entries meanwhile; try again")
        if self.is_closed:
            raise BusUnavailable("the connection to memory:// was closed; open a new bus")
