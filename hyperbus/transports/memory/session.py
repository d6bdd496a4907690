"""Whether one memory transport is closed. Every call passes through it, as it would through a connection."""

from __future__ import annotations

import asyncio

from hyperbus.errors import BusUnavailable


class Session:
    """The state that a transport shares with its streams, records and readers."""

    def __init__(self) -> None:
        self.is_closed = False

    async def enter(self) -> None:
        """Let other tasks run once, as every round trip does.

        Raises:
            BusUnavailable: the transport is closed.
        """
        await asyncio.sleep(0)
        if self.is_closed:
            raise BusUnavailable("the connection to memory:// was closed; open a new bus")
