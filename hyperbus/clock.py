"""Time, as one object that can be replaced: every wait and every timestamp of hyperbus goes through it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol

#: A duration, in seconds. Milliseconds exist only inside `transports/redis`.
Seconds = float


class Clock(Protocol):
    """What the rest of hyperbus asks about time."""

    def now(self) -> float:
        """Return the wall-clock time, in seconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Return a time, in seconds, that never goes backwards."""
        ...

    async def sleep(self, delay: Seconds) -> None:
        """Wait for `delay` seconds; at least one turn of the event loop."""
        ...


class SystemClock:
    """The machine's own clock."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, delay: Seconds) -> None:
        """Wait for `delay` seconds; at least one turn of the event loop."""
        await asyncio.sleep(delay)


def utc(seconds: float) -> datetime:
    """Turn seconds since the Unix epoch into an aware datetime in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
