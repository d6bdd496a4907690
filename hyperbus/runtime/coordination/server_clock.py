"""The server's time, by which due times are kept: clocks of workers differ, and are set."""

from __future__ import annotations

from hyperbus.clock import Clock, Seconds
from hyperbus.transport import Records

#: For how long an answer of the server is reckoned with.
_ASK: Seconds = 1.0


class ServerClock:
    """Tells the server's time, asked for at most once a second, and reckoned with the monotonic clock in between."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._monotonic = clock.monotonic
        self._at_zero = 0.0
        self._asked = float("-inf")

    async def now(self) -> float:
        """Return the server's time, in seconds since the epoch.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses.
        """
        return await self.at_zero() + self._monotonic()

    async def at_zero(self) -> float:
        """Return what the server's time was when the monotonic clock here stood at 0.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses.
        """
        if self._monotonic() - self._asked >= _ASK:
            told = await self._records.server_time()
            self._asked = self._monotonic()
            self._at_zero = told - self._asked
        return self._at_zero
