"""A group stands still for minutes: what two workers died with is begun one by one, behind long handlers each time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbus import Event, consumer
from hyperbus.signals import Claimed, SuspectRuns
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


async def held_by_two_that_died(here: Running, kind: str, group: str, lanes: int, begun: list[int]) -> None:
    """Let two workers die that held all: the first had begun any, the second as many as it had lanes."""

    @consumer(group=group, types=[kind], concurrency=lanes, order_by="workflow_id")
    async def hangs(event: Event) -> None:
        begun.append(event.data["n"])
        await asyncio.Event().wait()

    streams, stream = here.memory.streams, f"events:{kind}"
    assert await here.deliver_to_the_dead(kind, group) == SUSPECTS
    async with here.bus.running(hangs):
        await eventually(lambda: len(begun) == lanes)
        await eventually(lambda: sum(signal.count for signal in here.recorder.of(Claimed)) == SUSPECTS)
        pending = await streams.pending(stream, group)
        (owner,) = {entry.consumer for entry in pending}
        await streams.claim(stream, group, "dead too", [entry.id for entry in pending], owner=owner, in_order=True)


@pytest.mark.parametrize("keys", [3, SUSPECTS])
async def test_only_what_a_dead_worker_had_begun_is_a_suspect_in_an_ordered_group(keys: int) -> None:
    """Not the hundreds that waited for their turn, of the same key or of others; all are handled in their order."""
    kind, group, lanes, begun, seen = unique(), unique(), 3, list[int](), list[int]()

    @consumer(group=group, types=[kind], concurrency=lanes, order_by="workflow_id")
    async def handler(event: Event) -> None:
        await asyncio.sleep(0)
        seen.append(event.data["n"])

    async with Running(drain_timeout=0.1) as here:
        await here.append(kind, *(body(n, kind, workflow_id=f"wf-{n % keys}") for n in range(SUSPECTS)))
        await held_by_two_that_died(here, kind, group, lanes, begun)
        async with here.bus.running(handler):
            await eventually(lambda: len(seen) == SUSPECTS, within=30)
        alone = [signal for signal in here.recorder.of(SuspectRuns) if signal.alone]
        ids = [signal.entry_id.encode() for signal in alone]
        assert len(ids) == lanes
        left = await here.memory.streams.suspicions(f"events:{kind}", f"{group}:unbegun", ids)
        assert left == [0] * lanes
    for key in range(keys):
        assert [n for n in seen if n % keys == key] == list(range(key, SUSPECTS, keys))
