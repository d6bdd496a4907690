"""A right that one holds at a time."""

from __future__ import annotations

import asyncio
from typing import Any

from hyperbus.errors import OutOfMemoryError
from hyperbus.runtime.coordination.lease import Lease
from hyperbus.transports.memory import MemoryTransport
from tests.faults import FaultyTransport
from tests.unit.runtime.retention.cutting import HandClock


async def test_one_holds_a_lease_at_a_time() -> None:
    """It is kept by its holder, and given up on purpose or by its death."""
    transport = FaultyTransport()
    await transport.open()
    mine, theirs = (Lease(transport.records, "x", holder, 0.05) for holder in ("me", "them"))
    assert await mine.hold()
    assert await mine.hold()
    assert not await theirs.hold()
    await theirs.release()
    assert not await theirs.hold()
    await mine.release()
    assert await theirs.hold()
    async with asyncio.timeout(2):
        while not await mine.hold():
            await asyncio.sleep(0.01)


async def test_a_full_server_renews_a_lease_and_tells_whether_anybody_has_it() -> None:
    """It takes no `hold`, which stores something."""
    clock = HandClock()
    transport = FaultyTransport(MemoryTransport(clock=clock))
    await transport.open()
    mine = Lease(transport.records, "x", "me", 5)
    assert await mine.is_free()
    assert await mine.hold()

    async def refuse(*_: Any, **__: Any) -> Any:
        raise OutOfMemoryError("full")

    transport.records.overrides["compare_and_set"] = refuse
    for _ in range(5):
        clock.time += 4
        await mine.renew()
        assert not await mine.is_free()
    clock.time += 6
    assert await mine.is_free()
