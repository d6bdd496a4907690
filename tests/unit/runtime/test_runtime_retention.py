"""Retention on memory: what goes, what stays, who holds a stream, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from hyperbus import Event, EventData, consumer
from hyperbus.errors import BusUnavailable, OutOfMemoryError, ServerError
from hyperbus.event.retention import Declared, Keep, write_declared
from hyperbus.runtime.coordination.heartbeat import heartbeat_name
from hyperbus.runtime.retention.group_directory import release
from hyperbus.runtime.retention.retention_loop import Retention
from hyperbus.settings import Settings
from hyperbus.signals import Announcer, CutUnread, GhostStream, GroupAbandoned, HardCapNear, Trimmed
from hyperbus.transport import NewEntry
from hyperbus.transports.memory import MemoryTransport
from tests.faults import FaultyTransport
from tests.recorder import Recorder, eventually
from tests.unit.runtime.running import Running, unique

STREAM = "events:a"


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, delay: float) -> None:
        raise AssertionError("nothing waits here")


class Cutting:
    """One process that keeps retention, on a memory of its own, round by round."""

    def __init__(self, keep: Keep | None = None, **settings: Any) -> None:
        self.clock = HandClock()
        self.transport = FaultyTransport(MemoryTransport(clock=self.clock))
        self.recorder = Recorder()
        self.keep = keep
        self.settings = Settings(**{"abandon_after": 86_400.0, **settings})
        self.streams, self.records = self.transport.inner.streams, self.transport.inner.records
        self.retention = self.another()

    def another(self) -> Retention:
        """Return another process that would keep it."""
        announcer = Announcer([self.recorder])
        return Retention(self.transport, announcer, self.clock, self.settings, prefix="events", types={})  # type: ignore[arg-type]

    async def begin(self, count: int, *groups: str, size: int = 10) -> list[bytes]:
        """Fill the stream, one entry each millisecond, with groups that read from the first; return the ids."""
        if self.keep is not None:
            await self.records.put("retention:a", write_declared(Declared(self.keep, "m.C")))
        await self.streams.create_groups([(STREAM, group, b"0-0") for group in groups])
        return await self.fill(count, size=size)

    async def fill(self, count: int, *, size: int = 10) -> list[bytes]:
        """Append entries."""
        ids: list[bytes] = []
        for _ in range(count):
            self.clock.time += 0.001
            ids += [str(i).encode() for i in await self.streams.append([NewEntry(STREAM, b"data", b"x" * size)])]
        return ids

    async def read(self, group: str, count: int, *, ack: bool = True, consumer: str = "c") -> list[bytes]:
        """Let a group read, and ack unless told otherwise."""
        reader = self.transport.inner.open_reader()
        read = await reader.read_group(group, consumer, [STREAM], count=count, block=0)
        await reader.close()
        ids = [entry.id for _, entries in read for entry in entries]
        if ack:
            await self.streams.ack([(STREAM, group, ids)])
        return ids

    async def pass_time(self, seconds: float, *, rounds: int = 1) -> None:
        """Let time pass, with rounds in between."""
        for _ in range(rounds):
            self.clock.time += seconds / rounds
            await self.retention.round()

    async def left(self) -> int:
        """Return how many entries there are."""
        (info,) = await self.streams.info([STREAM])
        return 0 if info is None else info.length

    def unread(self) -> dict[tuple[str, str], int]:
        """Return what was told to have been cut unread, by group and reason."""
        found: dict[tuple[str, str], int] = {}
        for signal in self.recorder.of(CutUnread):
            found[signal.group, signal.reason] = found.get((signal.group, signal.reason), 0) + signal.count
        return found


# -- what stays


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


# -- who holds a stream


async def test_a_lost_group_holds_everything_until_it_is_made_again() -> None:
    """Its worker will rebuild it from a checkpoint."""
    cutting = Cutting(Keep(age=0))
    await cutting.records.put(heartbeat_name("c"), b"{}")
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


async def test_a_group_that_is_ended_for_good_is_released() -> None:
    """Not at once: the process that cuts cannot tell it from one whose record was lost."""
    cutting = Cutting(Keep(age=0))
    await cutting.records.put(heartbeat_name("c"), b"{}")
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
    assert [member for member, _ in await cutting.records.members("groups")] == ["{events:a}:other"]


async def test_a_group_that_nobody_serves_is_given_up_loudly() -> None:
    """After the time that is set and a warning; what goes unread is counted."""
    cutting = Cutting(Keep(age=0))
    await cutting.begin(100, "left", "live")
    await cutting.read("left", 40, ack=False)
    await cutting.read("live", 100)
    await cutting.records.put(heartbeat_name("c2"), b"{}")
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
    await cutting.records.put(heartbeat_name("c"), b"{}")
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


# -- streams that nobody reads


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


# -- hard caps


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
    await cutting.records.put(heartbeat_name("c"), b"{}")
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


# -- who cuts


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
    assert [member for member, _ in await cutting.records.members("groups")] == ["{events:a}:g"]


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
    await cutting.records.add_members("streams", {"events:bad": 1.0})
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


# -- policies


async def test_a_policy_counts_wherever_the_lease_lies_and_is_taken_back_by_its_class() -> None:
    """Another program that knows the type and declares nothing changes nothing."""
    kind = unique("r")
    transport = MemoryTransport()
    recorder = Recorder()

    def process(retention: Keep | None, name: str) -> Retention:
        cls = type(EventData)(name, (EventData,), {"__module__": "m"}, type=kind, retention=retention)
        settings = Settings(retain_age=1.0)
        types = {kind: cls}
        return Retention(transport, Announcer([recorder]), HandClock(), settings, prefix="events", types=types)  # type: ignore[arg-type, dict-item]

    async def written() -> bytes | None:
        (value,) = await transport.records.get([f"retention:{kind}"])
        return value

    await process(Keep(age=100), "A").round()
    assert await written() == write_declared(Declared(Keep(age=100), "m.A"))
    await process(None, "B").round()
    assert await written() is not None
    await process(Keep(age=200), "A").round()
    assert await written() == write_declared(Declared(Keep(age=200), "m.A"))
    await process(None, "A").round()
    assert await written() is None


# -- in a bus


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
        held = await running.memory.records.get(["lease:retention"])
        assert held[0] is not None
    running.memory._session.is_closed = False
    assert await running.memory.records.get(["lease:retention"]) == [None]


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
    retention = Retention(transport, Announcer([recorder]), clock, Settings(retain_age=0.1), prefix="events", types={})  # type: ignore[arg-type]
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
