"""Streams that have come to an end leave the server and the directory; nothing else does."""

from __future__ import annotations

from hyperbus.event.retention import Keep
from hyperbus.runtime.retention.ended_streams import BEING_BORN, ENDED_AFTER
from hyperbus.transport import NewEntry, Parked, record_names
from hyperbus.transport.births import read_births
from tests.unit.runtime.retention.cutting import STREAM, Cutting


async def directory(cutting: Cutting) -> list[str]:
    """Return the streams that it has."""
    return [name for name, _ in await cutting.records.members(record_names.STREAM_DIRECTORY)]


async def begun(count: int = 3) -> Cutting:
    """A stream that was published into, and that a group has read."""
    cutting = Cutting(Keep(age=1))
    await cutting.begin(count, "g")
    await cutting.records.touch_members(record_names.STREAM_DIRECTORY, [STREAM], 1.0)
    await cutting.read("g", count)
    return cutting


async def test_a_stream_that_has_come_to_an_end_goes_with_its_groups() -> None:
    """Workers are told a moment before."""
    cutting = await begun()
    await cutting.pass_time(60, rounds=5)
    assert (await cutting.left(), await directory(cutting)) == (0, [STREAM])
    await cutting.pass_time(ENDED_AFTER)
    (info,) = await cutting.streams.info([STREAM])
    notices = await cutting.streams.range(record_names.notices_key("events"))
    assert info is not None
    assert [(entry.fields[0], read_births(entry.fields[1])) for entry in notices] == [
        (record_names.STREAM_ENDED, [STREAM])
    ]
    await cutting.pass_time(1)
    assert await cutting.streams.info([STREAM]) == [None]
    assert await directory(cutting) == []
    assert await cutting.records.members(record_names.GROUP_DIRECTORY) == []


async def test_all_groups_of_a_stream_that_has_come_to_an_end_leave_the_directory() -> None:
    """Whoever keeps it next would wait for those that stayed."""
    cutting, groups = Cutting(Keep(age=1)), ("g", "h", "i")
    await cutting.begin(3, *groups)
    await cutting.records.touch_members(record_names.STREAM_DIRECTORY, [STREAM], 1.0)
    for group in groups:
        await cutting.read(group, 3)
    await cutting.pass_time(60, rounds=5)
    assert len(await cutting.records.members(record_names.GROUP_DIRECTORY)) == 3
    await cutting.pass_time(ENDED_AFTER)
    await cutting.pass_time(1)
    assert await cutting.streams.info([STREAM]) == [None]
    assert await cutting.records.members(record_names.GROUP_DIRECTORY) == []
    served = await cutting.records.get([record_names.served(STREAM, group) for group in groups])
    assert served == [None, None, None]


async def test_what_comes_in_the_last_moment_is_kept() -> None:
    """The stream is looked at once more in the step that removes it."""
    cutting = await begun()
    await cutting.pass_time(60, rounds=5)
    await cutting.pass_time(ENDED_AFTER)
    await cutting.fill(1)
    await cutting.pass_time(1, rounds=2)
    assert await cutting.left() == 1
    assert await cutting.read("g", 10) != []


async def test_what_waits_for_somebody_has_not_come_to_an_end() -> None:
    """Pending and parked entries, also where the stream itself is empty."""
    cutting = await begun()
    pending, parked = "events:pending", "events:parked"
    for name in (pending, parked):
        await cutting.streams.append([NewEntry(name, b"data", b"x")])
        await cutting.streams.create_groups([(name, "g", b"0-0")])
        reader = cutting.transport.inner.open_reader()
        [(_, [entry])] = await reader.read_group("g", "c", [name], count=1, block=0)
        if name == parked:
            await cutting.streams.park(name, "g", "c", [Parked(entry.id, entry.fields, 1, 1.0, 1e10)])
        await cutting.streams.trim(name, up_to=entry.id, limit=1000)
    await cutting.pass_time(60 + ENDED_AFTER, rounds=5)
    await cutting.pass_time(5, rounds=5)
    infos = dict(zip((STREAM, pending, parked), await cutting.streams.info([STREAM, pending, parked]), strict=True))
    assert [name for name, info in infos.items() if info is None] == [STREAM]


async def test_a_stream_that_somebody_deleted_leaves_the_directory_unless_it_is_being_born() -> None:
    """A publisher enters a stream before its first entry."""
    cutting = Cutting()
    await cutting.records.touch_members(record_names.STREAM_DIRECTORY, ["events:old"], 1.0)
    await cutting.pass_time(BEING_BORN / 2)
    await cutting.records.touch_members(record_names.STREAM_DIRECTORY, ["events:young"], 1.0)
    await cutting.pass_time(BEING_BORN / 2 + 1, rounds=2)
    assert await directory(cutting) == ["events:young"]


async def test_a_stream_that_a_worker_names_stays_though_nothing_ever_came() -> None:
    """It waits there for its first event; the directory does not have it."""
    cutting = Cutting()
    await cutting.streams.create_groups([("events:waited.for", "g", b"0-0")])
    await cutting.pass_time(2 * ENDED_AFTER, rounds=4)
    assert await cutting.streams.info(["events:waited.for"]) != [None]


async def test_very_many_streams_are_all_kept_down() -> None:
    """More than one look takes: each has its turn; those that were published into last are looked at first."""
    names = [f"events:s{number}" for number in range(2_500)]
    cutting = Cutting(Keep(age=1))
    await cutting.streams.append([NewEntry(name, b"data", b"x") for name in names])
    await cutting.streams.create_groups([(name, "g", b"9999999999999-0") for name in names])
    await cutting.records.add_members(record_names.STREAM_DIRECTORY, dict.fromkeys(names, cutting.clock.time))
    await cutting.pass_time(7200, rounds=1)
    for _ in range(4):
        await cutting.retention.round()
    infos = await cutting.streams.info(names)
    assert [info.stream for info in infos if info is not None and info.length] == []
