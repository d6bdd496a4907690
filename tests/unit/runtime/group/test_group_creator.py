"""Where a group begins: at the moment it was first declared, whatever streams there were then."""

from __future__ import annotations

import pytest

from hyperbus import Event, consumer
from hyperbus.signals import GroupRebuilt
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique


@pytest.mark.parametrize("runs_on", [True, False], ids=["goes on running", "has stopped"])
async def test_a_group_that_wants_what_is_new_has_all_that_came_after_its_first_start(runs_on: bool) -> None:
    """Even where no stream matched its glob when it started, and nobody ran when one was born."""
    word, seen = unique(), list[int]()

    @consumer(group=unique(), types=[f"{word}.*"], start_from="new")
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async with Running() as here:
        async with here.bus.running(handler):
            if runs_on:
                await here.publish(f"{word}.a", 1, 2)
                await eventually(lambda: len(seen) == 2)
        if not runs_on:
            await here.publish(f"{word}.a", 1, 2)
            async with here.bus.running(handler):
                await eventually(lambda: len(seen) == 2)
    assert seen == [1, 2]


@pytest.mark.parametrize("odd", [0, 1, 2])
async def test_a_key_that_is_no_stream_keeps_no_other_from_its_group(odd: int) -> None:
    """Whichever of several it is, at the start."""
    kinds, seen = [unique() for _ in range(3)], list[str]()
    good = [kind for place, kind in enumerate(kinds) if place != odd]

    @consumer(group=unique(), types=kinds)
    async def handler(event: Event) -> None:
        seen.append(event.type)

    async with Running() as here:
        here.memory.set_value(f"events:{kinds[odd]}", b"no stream")
        for kind in good:
            await here.publish(kind, 1)
        async with here.bus.running(handler):
            await eventually(lambda: sorted(seen) == sorted(good))
        infos = await here.memory.streams.info([f"events:{kind}" for kind in good])
        assert [len(info.groups) for info in infos if info is not None] == [1, 1]
    assert here.recorder.of(GroupRebuilt) == [], "they were made at the start, and not because a read missed them"
