"""The machine's clock."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from hyperbus.clock import Clock, SystemClock, utc


def test_the_system_clock_tells_the_machine_s_time() -> None:
    """Both of its times."""
    clock: Clock = SystemClock()
    assert abs(clock.now() - time.time()) < 5
    assert abs(clock.monotonic() - time.monotonic()) < 5
    assert clock.monotonic() <= clock.monotonic()


async def test_sleeping_lets_others_run_and_lasts_as_long_as_asked() -> None:
    """Even when asked for no time at all."""
    clock = SystemClock()
    others: list[str] = []
    asyncio.get_running_loop().call_soon(others.append, "ran")
    await clock.sleep(0)
    assert others == ["ran"]
    before = clock.monotonic()
    await clock.sleep(0.02)
    assert clock.monotonic() - before >= 0.019


def test_seconds_become_an_aware_time_in_utc() -> None:
    """So that nothing is compared with local time."""
    assert utc(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert utc(1.5).tzinfo is UTC
