"""Who cuts, which streams, and what happens when the server is away, full, or refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from hyperbus import Event, consumer
from hyperbus.errors import BusUnavailable, OutOfMemoryError, ServerError
from hyperbus.event.retention import Keep
from hyperbus.runtime.retention.retention_loop import RetentionLoop
from hyperbus.settings import Settings
from hyperbus.signals import Announcer, Trimmed
from hyperbus.transport import NewEntry, record_names
from tests.faults import FaultyTransport
from tests.recorder import Recorder, eventually
from tests.unit.runtime.retention.cutting import STREAM, Cutting, HandClock
from tests.unit.runtime.running import Running, unique


async def test_parts_of_a_stream_and_inboxes_are_kept_down_too_and_nothing_else_is() -> None:
    """The policy of a part is its type's; dead letters and other keys are not touched."""
    cutting = Cutting(Keep(age=5))
    names = ["events:a:0", "events:@agent", "{events:a}:dead:g", "events:", "events:A", "other:a"]
    for name in names:
        await cutting.streams.append([NewEntry(name, b"data", b"x")])
        if name != "events:@agent":
            await cutting.streams.create_groups([(name, "g", b"9999999999999-0")])
    await cutting.begin(1, "g")
    await cutting.pass_time(60, rounds=2)
    await cutting.pass_time(7200, rounds=2)
    infos = dict(zip(names, await cutting.streams.info(names), strict=True))
    assert {name for name, info in infos.items() if info is not None and info.length == 0} == set(names[:2])


async def test_one_process_cuts_at_a_time_and_another_takes_over() -> None:
    """When the first is gone, or leaves."""
    cutting = Cutting(Keep(age=0))
    other = cutting.another()
    await cutting.begin(10, "g")
    await cutting.read("g", 10)
    await cutting.pass_time(1)
    assert await cutting.left() == 0
    await cutting.fill(10)
    await cutting.read("g", 10)
    cutting.clock.time += 1
    assert await other.round() == 0
    cutting.clock.time += 10
    assert await other.round() == 10
    assert await cutting.retention.round() == 0


async def test_a_full_server_is_cut_all_the_same() -> None:
    """It stores no lease, no directory and no policy, but cutting is what helps."""
    cutting = Cutting(Keep(age=0))
    await cutting.begin(10, "g")
    await cutting.read("g", 10)

    async def refuse(method: Any, *arguments: Any, **named: Any) -> Any:
        raise OutOfMemoryError("full")

    writes = ("put", "compare_and_set", "add_members")
    cutting.transport.records.overrides = dict.fromkeys(writes, refuse)
    cutting.clock.time += 1
    assert await cutting.retention.round() == 10
    assert await cutting.retention.round() == 0
    cutting.transport.records.overrides = {}
    await cutting.pass_time(20)
    assert [member for member, _ in await cutting.records.members(record_names.GROUP_DIRECTORY)] == ["{events:a}:g"]


async def test_a_full_server_keeps_the_lease_of_who_has_it() -> None:
    """It renews what it does not store anew."""
    cutting = Cutting(Keep(age=0))
    other = cutting.another()
    await cutting.begin(10, "g")
    await cutting.retention.round()

    async def refuse(method: Any, *arguments: Any, **named: Any) -> Any:
        raise OutOfMemoryError("full")

    cutting.transport.records.overrides = {"compare_and_set": refuse}
    for _ in range(5):
        await cutting.pass_time(3)
        await cutting.read("g", 1)
        assert await other.round() == 0
    cutting.clock.time += 60
    await cutting.read("g", 1)
    assert await other.round() > 0


async def test_a_key_that_is_no_stream_harms_no_other() -> None:
    """It is left alone."""
    cutting = Cutting(Keep(age=0))
    await cutting.begin(10, "g")
    await cutting.read("g", 10)
    await cutting.records.add_members(record_names.STREAM_DIRECTORY, {"events:bad": 1.0})
    cutting.transport.inner.set_value("events:bad", b"value")
    await cutting.pass_time(1)
    assert await cutting.left() == 0


async def test_a_server_that_weighs_nothing_still_keeps_other_bounds() -> None:
    """As where the command is not allowed."""
    cutting = Cutting(Keep(bytes=1, entries=1000))
    await cutting.begin(3000, "g")
    await cutting.read("g", 3000)

    async def refuse(method: Any, streams: Sequence[str]) -> Any:
        raise ServerError("NOPERM")

    cutting.transport.streams.overrides["stream_bytes"] = refuse
    await cutting.pass_time(1)
    assert 1000 <= await cutting.left() <= 1100


async def test_a_failing_part_of_a_round_cuts_nothing_and_the_next_one_starts_anew() -> None:
    """What was seen before an outage is not trusted after it."""
    cutting = Cutting(Keep(age=0))
    await cutting.begin(10, "g")
    await cutting.read("g", 10)

    async def fail(method: Any, *arguments: Any, **named: Any) -> Any:
        raise BusUnavailable("away")

    cutting.transport.records.overrides["members"] = fail
    cutting.clock.time += 1
    with pytest.raises(BusUnavailable):
        await cutting.retention.round()
    assert await cutting.left() == 10
    del cutting.transport.records.overrides["members"]
    await cutting.pass_time(1)
    assert await cutting.left() == 0


async def test_many_quiet_streams_each_have_their_turn() -> None:
    """However many there are."""
    cutting = Cutting()
    names = [f"events:s{number}" for number in range(2500)]
    await cutting.streams.append([NewEntry(name, b"data", b"x") for name in names])
    await cutting.streams.create_groups([(name, "g", b"9999999999999-0") for name in names])
    cutting.clock.time += 7200
    await cutting.pass_time(9, rounds=3)
    assert {info.length for info in await cutting.streams.info(names) if info is not None} == {0}


async def test_more_streams_that_are_born_at_once_than_one_round_looks_at_are_all_found() -> None:
    """At the next look, not when all streams are looked for again."""
    cutting = Cutting()
    await cutting.begin(1, "g")
    await cutting.pass_time(1)
    names = [f"events:s{number:04}" for number in range(1500)]
    await cutting.records.add_members(record_names.STREAM_DIRECTORY, dict.fromkeys(names, cutting.clock.time))
    await cutting.pass_time(2, rounds=2)
    assert len(cutting.transport.streams.called("scan")) == 1
    looked_at = {name for (page,) in cutting.transport.streams.called("info") for name in page}
    assert looked_at == {STREAM, *names}


async def test_a_bus_that_runs_workers_keeps_retention_by_itself() -> None:
    """Acked entries go, and it ends with the bus."""
    kind = unique("r")

    @consumer(group="g", types=[kind])
    async def handler(event: Event) -> None:
        pass

    async with Running(retain_age=0.05) as running, running.bus.running(handler):
        await running.publish(kind, *range(20))
        await running.recorder.wait_for(
            lambda _: sum(signal.count for signal in running.recorder.of(Trimmed)) == 20, within=10
        )
        held = await running.memory.records.get([record_names.lease(record_names.RETENTION_LEASE)])
        assert held[0] is not None
    running.memory._session.is_closed = False
    assert await running.memory.records.get([record_names.lease(record_names.RETENTION_LEASE)]) == [None]


async def test_an_outage_does_not_end_it() -> None:
    """It goes on when the server is back."""
    kind, failing = unique("r"), True

    async def fail(method: Any, *arguments: Any, **named: Any) -> Any:
        if failing:
            raise BusUnavailable("away")
        return await method(*arguments, **named)

    transport = FaultyTransport()
    transport.streams.overrides["oldest"] = fail
    clock, recorder = HandClock(), Recorder()

    async def no_sleep(delay: float) -> None:
        await real_sleep(0.001)

    real_sleep = asyncio.sleep
    clock.sleep = no_sleep  # type: ignore[method-assign]
    retention = RetentionLoop(
        transport, Announcer([recorder]), clock, Settings(retain_age=0.1), prefix="events", types={}
    )  # type: ignore[arg-type]
    await transport.inner.streams.append([NewEntry(f"events:{kind}", b"data", b"x")])
    await transport.inner.streams.create_groups([(f"events:{kind}", "g", b"9999999999999-0")])
    clock.time = 10_000_000_000.0
    running = asyncio.create_task(retention.run())
    try:
        await eventually(lambda: len(transport.streams.called("oldest")) > 2)
        failing = False
        await recorder.wait_for_one(Trimmed)
    finally:
        running.cancel()
        await asyncio.wait((running,))


async def aged(count: int) -> tuple[Cutting, list[str]]:
    """Return streams of one entry each that is acked and too old, and who keeps them."""
    cutting = Cutting()
    names = [f"events:s{number:03}" for number in range(count)]
    await cutting.streams.append([NewEntry(name, b"data", b"x") for name in names])
    await cutting.streams.create_groups([(name, "g", b"9999999999999-0") for name in names])
    cutting.clock.time += 1_000_000
    return cutting, names


async def lengths(cutting: Cutting, names: list[str]) -> list[int]:
    return [0 if info is None else info.length for info in await cutting.streams.info(names)]


@pytest.mark.parametrize("odd", [0, 1, 2])
@pytest.mark.parametrize("how", ["refuses", "is empty"])
async def test_a_stream_that_cannot_be_cut_keeps_no_other_from_it(odd: int, how: str) -> None:
    """Those after it in its page are cut in the same round."""
    cutting, names = await aged(3)

    async def refuses(floors: Any, stream: str) -> Any:
        if how == "refuses" and stream == names[odd]:
            raise ServerError("no stream any more")
        return await floors(stream)

    async def tells(oldest: Any, streams: Sequence[str]) -> Any:
        found = await oldest(streams)
        return [
            None if how == "is empty" and name == names[odd] else first
            for name, first in zip(streams, found, strict=True)
        ]

    cutting.transport.streams.overrides |= {"floors": refuses, "oldest": tells}
    assert await cutting.retention.round() == 2
    left = await lengths(cutting, names)
    assert left == [int(place == odd) for place in range(3)]


async def test_who_loses_the_right_to_cut_stops_between_two_pages() -> None:
    """Another process has it by then, and begins with what it sees itself."""
    cutting, names = await aged(250)
    pages: list[int] = []

    async def loses(oldest: Any, streams: Sequence[str]) -> Any:
        pages.append(len(streams))
        await cutting.records.put(record_names.lease(record_names.RETENTION_LEASE), b"another's")
        return await oldest(streams)

    cutting.transport.streams.overrides["oldest"] = loses
    assert await cutting.retention.round() == pages[0] < 250
    assert len(pages) == 1
    assert sum(await lengths(cutting, names)) == 250 - pages[0]
