"""Blocked reads in memory hear of what happens to their keys, of their loss, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hyperbus.errors import GroupNotFoundError
from hyperbus.transport import FIRST_ID
from hyperbus.transports.memory import MemoryTransport
from tests.recorder import eventually

#: How to lose a group, by what a server calls it.
LOSSES: dict[str, Callable[[MemoryTransport], object]] = {
    "FLUSHALL": lambda memory: memory.flush(),
    "DEL": lambda memory: memory.delete_stream("b"),
    "XGROUP DESTROY": lambda memory: memory.destroy_group("b", "g"),
}


@pytest.mark.parametrize("loss", list(LOSSES))
async def test_a_blocked_read_hears_at_once_that_its_group_is_lost(loss: str) -> None:
    """As from a server, and not when its time is over; the group may be that of any of its streams."""
    memory = MemoryTransport()
    await memory.open()
    await memory.streams.create_groups([(name, "g", FIRST_ID) for name in ("a", "b", "c")])
    reader = memory.open_reader()
    reading = asyncio.create_task(reader.read_group("g", "c", ["a", "b", "c"], count=1, block=600))
    await eventually(lambda: reader._waiter is not None)
    LOSSES[loss](memory)
    with pytest.raises(GroupNotFoundError):
        await asyncio.wait_for(reading, 10)
    await memory.close()
