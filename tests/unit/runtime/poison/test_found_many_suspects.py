"""A group stands still for minutes: what two workers died with is begun one by one, behind long handlers each time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbus import Event, consumer
from tests.recorder import eventually
from tests.unit.runtime.running import Running, body, unique

SUSPECTS = 40
#: How long a handler of another group takes, which always has something to do.
BUSY = 0.05


async def begun_beside(keys: int, **options: Any) -> tuple[list[str], list[int]]:
    """Let a busy group run beside one that suspects were left to; return what was begun, and the suspects' numbers."""
    kind, busy_kind, group = unique(), unique(), unique()
    begun: list[str] = []
    numbers: list[int] = []

    @consumer(group="busy", types=[busy_kind])
    async def busy(event: Event) -> None:
        begun.append("busy")
        await asyncio.sleep(BUSY)

    @consumer(group=group, types=[kind], concurrency=4, **options)
    async def handler(event: Event) -> None:
        begun.append("suspect")
        numbers.append(event.data["n"])
        await asyncio.sleep(0)

    async with Running() as here:
        await here.append(kind, *(body(n, kind, workflow_id=f"wf-{n % keys}") for n in range(SUSPECTS)))
        assert await here.deliver_to_the_dead(kind, group) == SUSPECTS
        pending = await here.memory.streams.pending(f"events:{kind}", group)
        counts = [(entry.id, 2) for entry in pending]
        await here.memory.streams.set_delivery_counts(f"events:{kind}", group, "dead", counts)
        await here.publish(busy_kind, *range(1_000))
        async with here.bus.running(busy, handler):
            await eventually(lambda: len(numbers) == SUSPECTS, within=30)
        assert set((await here.pending(kind, group)).values()) == set()
    return begun, numbers


@pytest.mark.parametrize("options", [{}, {"order_by": "workflow_id"}], ids=["in no order", "in order"])
async def test_handlers_are_waited_for_once_and_not_before_each_of_many_suspects(options: dict[str, Any]) -> None:
    """Between the first and the last of them others begin a few times at most."""
    begun, numbers = await begun_beside(SUSPECTS, **options)
    assert sorted(numbers) == list(range(SUSPECTS))
    among = begun[begun.index("suspect") : len(begun) - begun[::-1].index("suspect")]
    assert among.count("busy") <= SUSPECTS // 4, begun


@pytest.mark.parametrize("keys", [1, 3])
async def test_suspects_of_one_key_are_alone_together_as_well(keys: int) -> None:
    """The next of a key is not first looked for among what waits, while others begin."""
    begun, numbers = await begun_beside(keys, order_by="workflow_id")
    for key in range(keys):
        mine = [n for n in numbers if n % keys == key]
        assert mine == list(range(key, SUSPECTS, keys))
    among = begun[begun.index("suspect") : len(begun) - begun[::-1].index("suspect")]
    assert among.count("busy") <= SUSPECTS // 4, begun
