"""An entry that is suspected of killing processes keeps its place among those of its key."""

from __future__ import annotations

import asyncio

from hyperbus import Backoff, Event, consumer
from tests.recorder import eventually
from tests.unit.runtime.running import Running, body, unique


async def test_a_suspect_is_not_overtaken_by_its_key() -> None:
    """While suspects wait until they are alone, no later event of their keys begins."""
    kind, group = unique(), unique()
    seen: dict[str, list[int]] = {"wf-0": [], "wf-1": []}

    @consumer(group=group, types=[kind], concurrency=8, order_by="workflow_id", retry=Backoff(tries=9))
    async def handler(event: Event) -> None:
        await asyncio.sleep(0.005)
        seen[str(event.workflow_id)].append(event.data["n"])

    async with Running() as here:
        ids = await here.append(kind, *(body(n, kind, workflow_id=f"wf-{n % 2}") for n in range(20)))
        assert await here.deliver_to_the_dead(kind, group) == 20
        suspects = [(entry_id, 4) for entry_id in (ids[0], ids[1], ids[4], ids[5], ids[10])]
        await here.memory.streams.set_delivery_counts(f"events:{kind}", group, "dead", suspects)
        async with here.bus.running(handler):
            await eventually(lambda: sum(map(len, seen.values())) >= 20, within=20)
    assert seen == {"wf-0": list(range(0, 20, 2)), "wf-1": list(range(1, 20, 2))}
