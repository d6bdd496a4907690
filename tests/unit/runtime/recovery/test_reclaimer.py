"""Looking a group over: each of its streams, though only one of them has something to be found."""

from __future__ import annotations

import asyncio

import pytest

from hyperbus import Event, consumer
from hyperbus.runtime.reading import group_reader
from hyperbus.runtime.recovery import reclaimer
from hyperbus.transport import record_names
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique

pytestmark = pytest.mark.parametrize("odd", [0, 1, 2])


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaimer, "SWEEP", 0.02)
    monkeypatch.setattr(reclaimer, "RECOUNT", 0.05)
    monkeypatch.setattr(reclaimer, "TIDY", 0.05)
    monkeypatch.setattr(group_reader, "BLOCK", 0.1)


async def consumers(here: Running, kind: str, group: str) -> list[str]:
    (found,) = await here.memory.streams.consumers([(f"events:{kind}", group)])
    return found


async def test_what_was_handed_over_unheard_is_found_in_any_stream(odd: int) -> None:
    """Nobody else would take it: its new owner lives. So it asks, of each stream, what it holds."""
    kinds, group, seen = [unique() for _ in range(3)], unique(), list[int]()

    @consumer(group=group, types=kinds)
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async with Running() as here:
        await here.publish(kinds[odd], 7)
        await here.deliver_to_the_dead(kinds[odd], group, consumer="other")
        await here.memory.records.put(record_names.heartbeat("other"), b"it lives")
        async with here.bus.running(handler):
            (worker,) = await consumers(here, kinds[odd - 1], group)
            stream = f"events:{kinds[odd]}"
            (entry,) = await here.memory.streams.pending(stream, group)
            assert seen == []
            assert await here.memory.streams.hand_over(stream, group, "other", worker, [(entry.id, 1)]) == [True]
            await eventually(lambda: seen == [7])


async def test_a_dead_consumer_without_anything_pending_is_removed_from_any_stream(odd: int) -> None:
    """It shows up in no list of pending entries."""
    kinds, group = [unique() for _ in range(3)], unique()

    @consumer(group=group, types=kinds)
    async def handler(event: Event) -> None: ...

    async with Running() as here:
        await here.deliver_to_the_dead(kinds[odd], group)
        assert await consumers(here, kinds[odd], group) == ["dead"]
        async with here.bus.running(handler), asyncio.timeout(10):
            while "dead" in await consumers(here, kinds[odd], group):
                await asyncio.sleep(0.01)
            assert len(await consumers(here, kinds[odd], group)) == 1
