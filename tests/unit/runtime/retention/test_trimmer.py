"""What goes of a stream, what stays, and what is told of it."""

from __future__ import annotations

import pytest

from hyperbus.event.retention import Keep
from hyperbus.signals import GhostStream, HardCapNear, Trimmed
from hyperbus.transport import record_names
from tests.unit.runtime.retention.cutting import STREAM, Cutting


async def test_what_a_group_has_not_acked_stays_however_old() -> None:
    """Pending or not yet read; by the slowest group; whatever the policy is."""
    cutting = Cutting(Keep(age=0, entries=1, bytes=1))
    await cutting.begin(3000, "slow", "fast")
    await cutting.read("fast", 3000)
    pending = await cutting.read("slow", 100, ack=False)
    await cutting.streams.ack([(STREAM, "slow", pending[50:])])
    await cutting.pass_time(7200, rounds=3)
    assert await cutting.left() == 3000
    await cutting.streams.ack([(STREAM, "slow", pending[:50])])
    await cutting.pass_time(1)
    assert await cutting.left() == 2900
    assert sum(signal.count for signal in cutting.recorder.of(Trimmed)) == 100
    assert cutting.unread() == {}


async def test_acked_entries_go_when_their_age_is_up() -> None:
    """By default an hour after they were published; not before."""
    cutting = Cutting()
    await cutting.begin(10, "g")
    await cutting.read("g", 10)
    await cutting.pass_time(3590)
    await cutting.fill(5)
    await cutting.read("g", 5)
    assert await cutting.left() == 15
    await cutting.pass_time(11)
    assert await cutting.left() == 5


async def test_acked_entries_go_sooner_when_there_are_too_many() -> None:
    """About as many as the policy says stay: the newest."""
    cutting = Cutting(Keep(entries=2000))
    await cutting.begin(9000, "g")
    await cutting.read("g", 6000)
    await cutting.pass_time(1)
    assert 5000 <= await cutting.left() <= 6000  # 3,000 unread, 2,000 acked, and a little


async def test_few_entries_are_cut_to_the_number() -> None:
    """Where whole blocks would be too much."""
    cutting = Cutting(Keep(entries=100))
    ids = await cutting.begin(300, "g")
    await cutting.read("g", 250)
    await cutting.pass_time(1)
    assert 150 <= await cutting.left() <= 165
    assert (await cutting.streams.oldest([STREAM]))[0] > ids[130]


async def test_acked_entries_go_sooner_when_they_weigh_too_much() -> None:
    """By default too; large ones are few."""
    cutting = Cutting(retain_bytes=100_000)
    await cutting.begin(100, "g", size=10_000)
    await cutting.read("g", 60)
    await cutting.pass_time(1)
    assert 49 <= await cutting.left() <= 51


async def test_without_a_measure_everything_is_kept() -> None:
    """`Keep()` says so."""
    cutting = Cutting(Keep())
    await cutting.begin(2000, "g")
    await cutting.read("g", 2000)
    await cutting.pass_time(10_000_000, rounds=2)
    assert await cutting.left() == 2000


async def test_the_age_counts_where_the_server_does_not_know_the_lag() -> None:
    """And entries are counted one by one for the other measures."""
    cutting = Cutting(Keep(entries=1000))
    ids = await cutting.begin(5000)
    await cutting.streams.create_groups([(STREAM, "g", ids[2999])])
    cutting.transport.inner.delete_entries(STREAM, [ids[4000]])
    (info,) = await cutting.streams.info([STREAM])
    assert info is not None
    assert info.groups[0].lag is None
    await cutting.pass_time(1)
    assert 2999 <= await cutting.left() <= 3100


async def test_a_stream_without_a_group_goes_by_age_and_weight_and_is_told_of() -> None:
    """Once an hour, not each second; only after its group had time to come back."""
    cutting = Cutting(Keep(age=100), ghost_bytes=1_000_000)
    await cutting.begin(200, size=10_000)
    await cutting.pass_time(1)
    assert await cutting.left() == 200
    await cutting.pass_time(31)
    assert 98 <= await cutting.left() <= 100
    await cutting.pass_time(100)
    assert await cutting.left() == 0
    assert [signal.stream for signal in cutting.recorder.of(GhostStream)] == [STREAM]
    assert sum(signal.count for signal in cutting.recorder.of(Trimmed)) == 200


async def test_a_stream_whose_groups_were_just_lost_is_left_alone() -> None:
    """After a FLUSHALL the directory is gone as well."""
    cutting = Cutting(Keep(age=0))
    await cutting.begin(100, "g")
    await cutting.pass_time(1)
    cutting.transport.inner.flush()
    cutting.retention = cutting.another()
    await cutting.begin(100)
    await cutting.pass_time(20, rounds=10)
    assert await cutting.left() == 100


async def test_a_hard_cap_warns_first_and_counts_what_it_cuts_unread() -> None:
    """By group, pending entries and those that were not read; the cap holds about."""
    cutting = Cutting(Keep(entries=10_000, hard=True))
    await cutting.begin(7000, "slow", "fast")
    await cutting.read("fast", 7000)
    await cutting.pass_time(1)
    assert cutting.recorder.of(HardCapNear) == []
    await cutting.fill(2000)
    await cutting.pass_time(1)
    (near,) = cutting.recorder.of(HardCapNear)
    assert near.share == pytest.approx(0.9)
    assert cutting.unread() == {}
    held = await cutting.read("slow", 100, ack=False)
    await cutting.streams.ack([(STREAM, "slow", held[::2])])
    await cutting.fill(6000)
    await cutting.pass_time(1, rounds=2)
    left = await cutting.left()
    cut = 15_000 - left
    assert 9000 <= left <= 10_000
    assert cutting.unread() == {("slow", "hard cap"): cut - 50}
    assert len(cutting.recorder.of(HardCapNear)) == 1


async def test_a_hard_cap_cuts_what_is_acked_first() -> None:
    """It loses nothing while there is such."""
    cutting = Cutting(Keep(bytes=100_000, hard=True))
    await cutting.begin(400, "g", size=1000)
    await cutting.read("g", 350)
    await cutting.pass_time(1)
    assert 90 <= await cutting.left() <= 110
    assert cutting.unread() == {}
    await cutting.fill(400, size=1000)
    await cutting.pass_time(3, rounds=3)
    left = await cutting.left()
    assert 90 <= left <= 100
    assert cutting.unread() == {("g", "hard cap"): 450 - left}


async def test_a_hard_cap_holds_for_a_lost_group_too() -> None:
    """What lies above its checkpoint is unread."""
    cutting = Cutting(Keep(entries=2000, hard=True))
    await cutting.records.put(record_names.heartbeat("c"), b"{}")
    await cutting.begin(1000, "g")
    await cutting.read("g", 500)
    await cutting.streams.save_checkpoints([(STREAM, "g")])
    await cutting.pass_time(1)
    cutting.transport.inner.destroy_group(STREAM, "g")
    await cutting.fill(4000)
    await cutting.pass_time(1)
    left = await cutting.left()
    assert 1900 <= left <= 2000
    assert cutting.unread() == {("g", "hard cap"): 5000 - left - 500}
