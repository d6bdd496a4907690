"""Where a group begins: at the moment it was first declared, whatever streams there were then."""

from __future__ import annotations

import pytest

from hyperbus import Event, consumer
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
