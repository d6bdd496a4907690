"""Dead letters at the end of a worker: a server that is away for a moment is waited for."""

from __future__ import annotations

from typing import Any

from hyperbus import BusUnavailable, Event, Reject, consumer
from hyperbus.signals import EntryDeadLettered, WorkerChanged
from tests.unit.runtime.running import Running, unique


async def test_a_dead_letter_is_written_though_the_server_comes_back_only_while_the_worker_ends() -> None:
    """It is not left to another worker, which would have to be handed the entry again."""
    kind, group, failures = unique(), unique(), list[bool]()
    here = Running(drain_timeout=10)

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        raise Reject("no")

    async def away(write: Any, *arguments: Any) -> Any:
        is_ending = any(signal.state == "draining" for signal in here.recorder.of(WorkerChanged))
        if failures.count(True) < 2:
            failures.append(is_ending)
            raise BusUnavailable("away")
        return await write(*arguments)

    here.transport.streams.overrides["dead_letter"] = away
    async with here:
        await here.publish(kind, 1)
        async with here.bus.running(handler):
            await here.recorder.wait_for(lambda _: failures)
        assert failures.count(True) == 2
        assert len(await here.dead_letters(kind, group)) == 1
        assert await here.pending(kind, group) == {}
    assert len(here.recorder.of(EntryDeadLettered)) == 1
