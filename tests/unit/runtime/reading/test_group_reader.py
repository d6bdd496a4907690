"""When a worker of a group reads, and when it does not: doubts come first, and an outage that is over is over."""

from __future__ import annotations

import time
from typing import Any

import pytest

from hyperbus import BusUnavailable, Event, consumer
from hyperbus.errors import WrongTypeError
from hyperbus.runtime.reading import group_reader
from hyperbus.runtime.recovery import reclaimer
from hyperbus.signals import ConnectionChanged
from tests.faults import FaultyTransport
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique


async def test_who_may_not_read_does_not_read_because_of_a_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an ordered group another worker reads; one whose claim was answered unheard asks what it holds, and no more."""
    monkeypatch.setattr(reclaimer, "SWEEP", 0.02)
    kind, seen, failures = unique(), list[int](), list[int]()

    @consumer(group=unique(), types=[kind], order_by="workflow_id")
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async def fails(hold: Any, *arguments: Any, **options: Any) -> Any:
        if len(failures) < 3:
            failures.append(1)
            raise BusUnavailable("the answer was lost")
        return await hold(*arguments, **options)

    first = FaultyTransport()
    second = FaultyTransport(first.inner.separate())
    here, there = Running(first, heartbeat_ttl=5), Running(second, heartbeat_ttl=5)
    async with here, there, here.bus.running(handler):
        await here.publish(kind, 1)
        await eventually(lambda: seen == [1])
        async with there.bus.running(handler):
            second.records.overrides["compare_and_set"] = fails
            await eventually(lambda: len(failures) == 3)
            before = len(second.streams.called("pending"))
            await eventually(lambda: len(second.streams.called("pending")) > before)
            await here.publish(kind, 2)
            await eventually(lambda: seen == [1, 2])
            reader = second.readers[-1]
            assert reader.called("read_pending"), "it is the reader of the worker"
            assert reader.called("read_group") == []


async def test_a_short_break_after_a_long_one_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses grow while the server is away, and begin anew once a read was answered."""
    monkeypatch.setattr(group_reader, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(group_reader, "_LONGEST_PAUSE", 60.0)
    kind, calls = unique(), list[float]()
    #: Six failures in a row, then one at a time.
    fails = [False] + [True] * 6 + [False, True] * 5 + [False]
    here = Running()

    @consumer(group=unique(), types=[kind])
    async def handler(event: Event) -> None: ...

    async def sometimes(read: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(time.monotonic())
        if len(calls) < len(fails):
            if fails[len(calls)]:
                raise BusUnavailable("away")
            return []
        return await read(*arguments, **options)

    here.transport.reader_overrides["read_group"] = sometimes
    async with here, here.bus.running(handler):
        await eventually(lambda: len(calls) >= len(fails))
    pauses = [later - earlier for earlier, later, failed in zip(calls, calls[1:], fails[1:], strict=False) if failed]
    assert pauses[5] >= 0.32
    assert min(pauses[6:]) < 0.32


@pytest.mark.parametrize("audience", ["group", "every_process"])
async def test_many_keys_that_are_no_streams_are_set_aside_at_once(audience: Any) -> None:
    """After one read that failed, and not one after another with a pause between them."""
    good, bad, seen = unique(), [unique() for _ in range(10)], list[int]()
    here, failed = Running(), list[str]()

    @consumer(group=unique(), types=[*bad[:5], good, *bad[5:]], audience=audience)
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async def counted(read: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return await read(*arguments, **options)
        except WrongTypeError as error:
            if options.get("block"):
                failed.append(str(error))
            raise

    here.transport.reader_overrides |= {"read_group": counted, "read": counted}
    async with here, here.bus.running(handler):
        for kind in bad:
            here.memory.delete_stream(f"events:{kind}")
            here.memory.set_value(f"events:{kind}", b"no stream")
        await here.publish(good, 1)
        await eventually(lambda: seen == [1])
    told = {signal.part for signal in here.recorder.of(ConnectionChanged) if signal.kind == "stream"}
    assert told == {f"stream events:{kind}" for kind in bad}
    assert 1 <= len(failed) <= 3
