"""Who holds a stream, and for how long."""

from __future__ import annotations

import pytest

from hyperbus.event.retention import Keep
from hyperbus.runtime.retention.group_directory import release
from hyperbus.signals import GroupAbandoned
from hyperbus.transport import record_names
from tests.unit.runtime.retention.cutting import STREAM, Cutting


async def test_a_lost_group_holds_everything_until_it_is_made_again() -> None:
    """Its worker will rebuild it from a checkpoint."""
    cutting = Cutting(Keep(age=0))
    await cutting.records.put(record_names.heartbeat("c"), b"{}")
    ids = await cutting.begin(100, "served", "other")
    await cutting.read("served", 10, ack=False)
    await cutting.pass_time(1)
    cutting.transport.inner.destroy_group(STREAM, "served")
    await cutting.read("other", 100)
    await cutting.pass_time(100, rounds=5)
    assert await cutting.left() == 100
    heir = cutting.another()
    cutting.clock.time += 10
    await heir.round()
    assert await cutting.left() == 100
    await cutting.streams.create_groups([(STREAM, "served", ids[9])])
    cutting.clock.time += 1
    await heir.round()
    assert await cutting.left() == 90


@pytest.mark.parametrize("odd", ["one", "two", "three"])
async def test_whoever_takes_over_knows_each_of_the_lost_groups_of_a_stream(odd: str) -> None:
    """A stream has several in the directory: whichever is lost holds what it had not read."""
    cutting, groups = Cutting(Keep(age=0)), ("one", "two", "three")
    await cutting.records.put(record_names.heartbeat("c"), b"{}")
    await cutting.begin(100, *groups)
    for group in groups:
        await cutting.read(group, 10 if group == odd else 100, ack=group != odd)
    await cutting.pass_time(1)
    cutting.transport.inner.destroy_group(STREAM, odd)
    heir = cutting.another()
    for _ in range(3):
        cutting.clock.time += 10
        await heir.round()
    assert await cutting.left() == 100


async def test_a_group_that_is_ended_for_good_is_released() -> None:
    """Not at once: the process that cuts cannot tell it from one whose record was lost."""
    cutting = Cutting(Keep(age=0))
    await cutting.records.put(record_names.heartbeat("c"), b"{}")
    await cutting.begin(100, "ended", "other")
    await cutting.read("ended", 10, ack=False)
    await cutting.read("other", 100)
    await cutting.pass_time(1)
    cutting.transport.inner.destroy_group(STREAM, "ended")
    await release(cutting.records, STREAM, "ended")
    await cutting.pass_time(60, rounds=4)
    assert await cutting.left() == 100
    await cutting.pass_time(700, rounds=7)
    assert await cutting.left() == 0


async def test_a_group_of_another_program_that_is_removed_holds_nothing() -> None:
    """Nobody will make it again."""
    cutting = Cutting(Keep(age=0))
    await cutting.begin(100, "foreign", "other")
    await cutting.read("other", 100)
    await cutting.pass_time(100, rounds=20)
    assert await cutting.left() == 100
    cutting.transport.inner.destroy_group(STREAM, "foreign")
    await cutting.pass_time(60, rounds=4)
    assert await cutting.left() == 0
    assert [member for member, _ in await cutting.records.members(record_names.GROUP_DIRECTORY)] == ["{events:a}:other"]


async def test_a_group_that_nobody_serves_is_given_up_loudly() -> None:
    """After the time that is set and a warning; what goes unread is counted."""
    cutting = Cutting(Keep(age=0))
    await cutting.begin(100, "left", "live")
    await cutting.read("left", 40, ack=False)
    await cutting.read("live", 100)
    await cutting.records.put(record_names.heartbeat("c2"), b"{}")
    await cutting.read("live", 1, consumer="c2")
    await cutting.pass_time(86_000, rounds=20)
    assert (await cutting.left(), cutting.recorder.of(GroupAbandoned)) == (100, [])
    await cutting.pass_time(5000, rounds=10)
    (warning,) = cutting.recorder.of(GroupAbandoned)
    assert (warning.group, warning.stream) == ("left", STREAM)
    assert warning.seconds_left > 0
    assert await cutting.left() == 100
    await cutting.pass_time(1200, rounds=12)
    assert cutting.recorder.of(GroupAbandoned)[1:] == [GroupAbandoned("left", STREAM, 0.0)]
    assert await cutting.left() == 0
    assert cutting.unread() == {("left", "abandoned"): 100}


async def test_a_stream_that_is_gone_does_not_keep_those_after_it_from_theirs() -> None:
    """Its name stays in the directory of streams."""
    cutting = Cutting(Keep(age=0))
    await cutting.records.add_members(record_names.STREAM_DIRECTORY, {"events:gone": 3.0, STREAM: 2.0})
    await cutting.begin(10, "g")
    await cutting.pass_time(1)
    assert cutting.transport.streams.called("info")[0] == (["events:gone", STREAM],)
    assert [name for name, _ in await cutting.records.members(record_names.GROUP_DIRECTORY)] == ["{events:a}:g"]


async def test_a_group_that_makes_progress_is_served() -> None:
    """Though none of its consumers has a heartbeat: it is another program's."""
    cutting = Cutting(Keep(age=0))
    await cutting.begin(100, "foreign")
    for _ in range(20):
        await cutting.read("foreign", 1)
        await cutting.pass_time(20_000, rounds=2)
    assert await cutting.left() == 80
    assert cutting.recorder.of(GroupAbandoned) == []


async def test_a_group_that_was_given_up_counts_again_when_it_is_served() -> None:
    """From then on."""
    cutting = Cutting(Keep(age=0))
    await cutting.begin(10, "g")
    await cutting.pass_time(120_000, rounds=12)
    assert await cutting.left() == 0
    await cutting.fill(10)
    await cutting.records.put(record_names.heartbeat("c"), b"{}")
    await cutting.read("g", 1, ack=False)
    await cutting.retention.round()
    await cutting.fill(10)
    await cutting.pass_time(60, rounds=4)
    assert await cutting.left() >= 10
    assert cutting.unread() == {("g", "abandoned"): 10}


async def test_a_server_that_was_away_for_long_gives_nobody_up_at_once() -> None:
    """Whoever comes back with it has time to say that it serves."""
    cutting = Cutting(Keep(age=0))
    await cutting.begin(100, "g")
    await cutting.pass_time(1)
    cutting.clock.time += 30 * 86_400
    heir = cutting.another()
    for _ in range(5):
        await heir.round()
        cutting.clock.time += 60
    assert await cutting.left() == 100
    assert len(cutting.recorder.of(GroupAbandoned)) == 1
