"""When a worker may call others dead, and what becomes of the right to look meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbus import Delivery, Event, consumer
from hyperbus.runtime.recovery import reclaimer
from hyperbus.signals import Claimed
from tests.faults import FaultyTransport
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaimer, "SWEEP", 0.02)


def collects(seen: list[Any], **options: Any) -> Any:
    @consumer(**options)
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))

    return handler


@pytest.mark.parametrize("question", ["pending_summaries", "lifetimes", "compare_and_set"])
async def test_an_answer_that_took_long_starts_the_grace_again(question: str) -> None:
    """While the server answered nobody, the living could not say that they live."""
    kind, group, seen, slow = unique(), unique(), [], []
    async with Running(heartbeat_ttl=0.4) as here:
        await here.publish(kind, 1)
        await here.deliver_to_the_dead(kind, group)
        loop = asyncio.get_running_loop()

        async def slowly(ask: Any, *arguments: Any, **options: Any) -> Any:
            answer = await ask(*arguments, **options)
            task = asyncio.current_task()  # retention asks too, in a task of its own
            if len(slow) < 4 and task is not None and task.get_name().endswith("background"):
                await asyncio.sleep(0.2)
                slow.append(loop.time())
            return answer

        part = here.transport.streams if question == "pending_summaries" else here.transport.records
        part.overrides[question] = slowly
        async with here.bus.running(collects(seen, group=group, types=[kind])):
            await here.recorder.wait_for_one(Claimed)
        assert len(slow) == 4
        assert loop.time() - slow[-1] >= 0.4


async def test_who_may_not_judge_yet_leaves_the_right_to_who_may() -> None:
    """A process that was just started again does not keep the others of its group from taking over."""
    kind, group, seen = unique(), unique(), []
    old = FaultyTransport()
    async with Running(old, heartbeat_ttl=0.1) as here:
        new = FaultyTransport(old.inner.separate())
        declared = collects(seen, group=group, types=[kind])
        async with Running(new, heartbeat_ttl=60) as there, there.bus.running(declared):
            await eventually(lambda: new.streams.called("save_checkpoints"))
            async with here.bus.running(declared):
                await eventually(lambda: len(old.streams.called("pending_summaries")) > 3)
        assert new.streams.called("pending_summaries") == []


async def test_the_right_goes_to_another_when_there_is_no_room() -> None:
    """A full worker that finds entries of a dead one lets somebody else take them."""
    kind, group, seen = unique(), unique(), []
    release = asyncio.Event()

    @consumer(group=group, types=[kind])
    async def stuck(event: Event) -> None:
        await release.wait()

    full = FaultyTransport()
    async with Running(full, heartbeat_ttl=0.1, prefetch=1) as here:
        free = FaultyTransport(full.inner.separate())
        async with Running(free, heartbeat_ttl=0.1) as there:
            await here.publish(kind, 1)
            async with here.bus.running(stuck):
                await eventually(lambda: full.streams.called("pending_summaries"))
                await here.publish(kind, 2, 3)
                await here.deliver_to_the_dead(kind, group)
                async with there.bus.running(collects(seen, group=group, types=[kind])):
                    await there.recorder.wait_for(lambda _: sorted(seen) == [(2, 2), (3, 2)])
                release.set()
