"""Which streams a consumer reads and from where: globs, births, start, lost groups, keys that are no streams."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from hyperbus import BusUnavailable, Event, consumer
from hyperbus.runtime.group import stream_set
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import receive
from hyperbus.runtime.reading import pending_recovery
from hyperbus.runtime.recovery import reclaimer
from hyperbus.signals import Acknowledged, ConnectionChanged, GroupRebuilt, Recovered, RetryScheduled, StreamsFound
from hyperbus.transport import Entry
from tests.faults import FaultyTransport
from tests.recorder import eventually
from tests.unit.runtime.running import Running, body, read_ahead, unique


def collects(seen: list[Any], **options: Any) -> Any:
    """Return a consumer that keeps (type, number) of every event."""
    options.setdefault("group", unique())

    @consumer(**options)
    async def handler(event: Event) -> None:
        seen.append((event.type, event.data["n"]))

    return handler


async def test_globs_match_streams_there_are_and_streams_born_later() -> None:
    """No first event is missed, whoever made the stream, and dots are matched too."""
    word = unique()
    seen: list[Any] = []
    async with Running() as here:
        await here.publish(f"{word}.old", 1)
        async with here.bus.running(collects(seen, types=[f"{word}.*"])):
            await here.publish(f"{word}.new", 2)
            await here.publish(f"{word}.very.new", 3)
            await here.publish(f"{word}", 99)
            await here.append(f"{word}.foreign", body(4, f"{word}.foreign"))
            await eventually(lambda: len(seen) == 4)
        found = [stream for signal in here.recorder.of(StreamsFound) for stream in signal.streams]
    assert sorted(seen) == [
        (f"{word}.foreign", 4),
        (f"{word}.new", 2),
        (f"{word}.old", 1),
        (f"{word}.very.new", 3),
    ]
    assert sorted(found) == sorted(f"events:{kind}" for kind, _ in seen)


async def test_a_star_takes_every_event_type_and_nothing_else() -> None:
    """Keys that are no event type's stream are left alone."""
    kind, seen = unique(), []
    async with Running() as here:
        await here.append("@inbox", b"x")
        async with here.bus.running(collects(seen, types=["*"])):
            await here.publish(kind, 1)
            await eventually(lambda: seen == [(kind, 1)])


async def test_a_stream_that_cannot_be_taken_up_is_told_again() -> None:
    """The server was away when a birth was told: the next look tells it again."""
    word, seen, failures = unique(), [], [1]
    async with Running() as here, here.bus.running(collects(seen, types=[f"{word}.*"])):

        async def fails(create: Any, groups: Any) -> Any:
            if failures:
                failures.pop()
                raise BusUnavailable("away")
            return await create(groups)

        here.transport.streams.overrides["create_groups"] = fails
        await here.publish(f"{word}.a", 1)
        await eventually(lambda: seen == [(f"{word}.a", 1)])


async def test_finding_streams_survives_an_outage() -> None:
    """While the server is away nothing is found, and afterwards everything."""
    word, seen = unique(), []
    here = Running(FaultyTransport())

    async def away(*_: Any, **__: Any) -> Any:
        raise BusUnavailable("away")

    async with here, here.bus.running(collects(seen, types=[f"{word}.*"])):
        here.transport.records.overrides["members"] = away
        await here.publish(f"{word}.a", 1)
        await asyncio.sleep(0.05)
        del here.transport.records.overrides["members"]
        await eventually(lambda: seen == [(f"{word}.a", 1)])


async def test_a_group_starts_with_the_first_event_unless_told_otherwise() -> None:
    """`first` sees everything, an entry id what comes after it."""
    kind, first, after = unique(), [], []
    async with Running() as here:
        (one, _) = await here.append(kind, body(1, kind), body(2, kind))
        declared = [collects(first, types=[kind]), collects(after, types=[kind], start_from=one.decode())]
        async with here.bus.running(*declared):
            await eventually(lambda: len(first) == 2 and len(after) == 1)
    assert after == [(kind, 2)]


async def test_new_means_since_the_group_was_first_declared() -> None:
    """What lay there before is not seen; what came while no worker ran is, and of streams born later everything."""
    word, group, seen = unique(), unique(), []
    declared = collects(seen, group=group, types=[f"{word}.*"], start_from="new")
    async with Running() as here:
        await here.publish(f"{word}.a", 1)
        await asyncio.sleep(0.003)  # entry ids count milliseconds
        async with here.bus.running(declared):
            pass
        await asyncio.sleep(0.003)
        await here.publish(f"{word}.a", 2)
        await here.publish(f"{word}.b", 3)
        async with here.bus.running(declared):
            await eventually(lambda: len(seen) == 2)
    assert sorted(seen) == [(f"{word}.a", 2), (f"{word}.b", 3)]


async def test_every_process_sees_every_event_from_now_on() -> None:
    """Each worker has a cursor of its own: no group, no pending; streams born later are read from their start."""
    word = unique()
    seen: list[list[Any]] = [[], []]
    async with Running() as here:
        await here.publish(f"{word}.old", 1)
        declared = [collects(one, group=f"g{word}", types=[f"{word}.*"], audience="every_process") for one in seen]
        async with here.bus.running(*declared):
            await here.publish(f"{word}.old", 2)
            await here.publish(f"{word}.new", 3)
            await here.append(f"{word}.new", b"broken")
            await here.publish(f"{word}.new", 4)
            await eventually(lambda: all(len(one) == 3 for one in seen))
            (info,) = await here.memory.streams.info([f"events:{word}.old"])
            assert info.groups == []
    expected = [(f"{word}.new", 3), (f"{word}.new", 4), (f"{word}.old", 2)]
    assert [sorted(one) for one in seen] == [expected, expected]


async def test_every_process_goes_on_where_it_was_after_an_outage() -> None:
    """What came while the server was away is seen, in order and once; failures are not tried again."""
    kind, seen, broken = unique(), [], []
    here = Running()

    @consumer(types=[kind], audience="every_process")
    async def cache(event: Event) -> None:
        seen.append(event.data["n"])
        raise ValueError

    async def away(read: Any, *arguments: Any, **options: Any) -> Any:
        result = await read(*arguments, **options)
        if broken:
            raise BusUnavailable("the answer was lost")
        return result

    here.transport.reader_overrides["read"] = away
    async with here, here.bus.running(cache):
        await here.publish(kind, 1)
        await eventually(lambda: seen == [1])
        broken.append(True)
        await here.publish(kind, 2)
        await here.recorder.wait_for(lambda _: changed(here) == [False])
        await here.publish(kind, 3)
        broken.clear()
        await eventually(lambda: seen == [1, 2, 3])
        await here.recorder.wait_for(lambda _: changed(here) == [False, True])
    assert here.recorder.of(RetryScheduled) == []


def changed(here: Running) -> list[bool]:
    return [signal.connected for signal in here.recorder.of(ConnectionChanged) if signal.kind == "reader"]


@pytest.mark.parametrize("audience", ["group", "every_process"])
async def test_a_key_that_is_no_stream_is_left_alone_and_the_others_go_on(audience: Any) -> None:
    """One wrong key among a consumer's streams is told once, and taken up again when it is mended."""
    good, bad, seen = unique(), unique(), []
    async with Running() as here:
        here.memory.set_value(f"events:{bad}", b"no stream")
        declared = collects(seen, types=[bad, good], audience=audience)
        if audience == "every_process":
            here.memory.delete_stream(f"events:{bad}")
        async with here.bus.running(declared):
            here.memory.set_value(f"events:{bad}", b"no stream")
            await here.publish(good, 1)
            await eventually(lambda: seen == [(good, 1)])
            told = await here.recorder.wait_for_one(ConnectionChanged)
            assert (told.part, told.kind) == (f"stream events:{bad}", "stream")
            await here.publish(good, 2)
            await eventually(lambda: len(seen) == 2)
    assert len(here.recorder.of(ConnectionChanged)) == 1


async def test_a_stream_that_was_left_alone_is_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the key is looked at again; a group that is missing by then is made."""
    monkeypatch.setattr(stream_set, "SET_ASIDE", 0.05)
    good, bad, seen = unique(), unique(), []
    async with Running() as here:
        here.memory.set_value(f"events:{bad}", b"no stream")
        async with here.bus.running(collects(seen, types=[bad, good])):
            await here.recorder.wait_for_one(ConnectionChanged)
            here.memory.delete_stream(f"events:{bad}")
            await here.publish(bad, 1)
            await here.publish(good, 2)  # ends the read that is blocked
            await eventually(lambda: sorted(seen) == sorted([(bad, 1), (good, 2)]))


async def test_a_group_that_is_lost_is_made_again_and_nothing_is_missed() -> None:
    """Without any checkpoint it begins with the first entry: again rather than never; a lost stream likewise."""
    kind, group, seen = unique(), unique(), []
    async with Running() as here, here.bus.running(collects(seen, group=group, types=[kind])):
        await here.publish(kind, 1)
        await here.recorder.wait_for_one(Acknowledged)
        here.memory.destroy_group(f"events:{kind}", group)
        await here.publish(kind, 2)
        rebuilt = await here.recorder.wait_for_one(GroupRebuilt)
        await eventually(lambda: [n for _, n in seen] == [1, 1, 2])
        here.memory.delete_stream(f"events:{kind}")
        await here.recorder.wait_for(lambda _: len(here.recorder.of(GroupRebuilt)) == 2)
        await here.publish(kind, 3)
        await eventually(lambda: seen[-1] == (kind, 3))
    assert (rebuilt.group, rebuilt.stream) == (group, f"events:{kind}")


async def test_a_read_that_broke_off_after_delivering_is_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that were delivered unheard are found pending and handled; a deleted one among them leaves."""
    read_ahead(monkeypatch)
    kind, group, seen, done = unique(), unique(), [], []
    here = Running()

    async def breaks(read: Any, *arguments: Any, **options: Any) -> Any:
        result = await read(*arguments, **options)
        if result and not done:
            done.append(result)
            here.memory.delete_entries(f"events:{kind}", [result[0][1][1].id])
            raise BusUnavailable("the answer was lost")
        return result

    here.transport.reader_overrides["read_group"] = breaks
    async with here:
        await here.publish(kind, 1, 2, 3)
        async with here.bus.running(collects(seen, group=group, types=[kind])):
            recovered = await here.recorder.wait_for_one(Recovered)
            await here.recorder.wait_for(lambda _: here.recorder.of(Acknowledged))
            await eventually(lambda: len(seen) == 2)
            await here.publish(kind, 4)
            await eventually(lambda: len(seen) == 3)
        assert await here.pending(kind, group) == {}
    assert [n for _, n in seen] == [1, 3, 4]
    assert (recovered.group, recovered.count) == (group, 2)
    assert changed(here) == [False, True]


async def test_many_entries_are_recovered_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held already is not handed out twice."""
    monkeypatch.setattr(pending_recovery, "RECOVER_PAGE", 10)
    kind, seen, reads = unique(), [], []
    here = Running()

    async def breaks(read: Any, *arguments: Any, **options: Any) -> Any:
        result = await read(*arguments, **{**options, "count": 17})
        reads.append(result)
        if len(reads) == 2:
            raise BusUnavailable("the answer was lost")
        return result

    here.transport.reader_overrides["read_group"] = breaks
    async with here:
        await here.publish(kind, *range(50))
        async with here.bus.running(collects(seen, types=[kind])):
            await eventually(lambda: len(seen) >= 50)
    assert sorted(n for _, n in seen) == list(range(50))


@pytest.mark.parametrize("settings", [{"prefetch": 10}, {"prefetch_bytes": 1_500}])
async def test_a_worker_holds_no_more_than_it_may(settings: Any) -> None:
    """Bounded by count and by bytes, over all its streams, until handlers make room."""
    kinds, group, seen = [unique() for _ in range(8)], unique(), []
    release = asyncio.Event()

    @consumer(group=group, types=kinds)
    async def handler(event: Event) -> None:
        await release.wait()
        seen.append(event.data["n"])

    async with Running(**settings) as here:
        for kind in kinds:
            await here.publish(kind, *range(20))
        async with here.bus.running(handler):
            held = [0]

            async def count() -> int:
                return sum([len(await here.pending(kind, group)) for kind in kinds])

            await here.recorder.wait_for_one(StreamsFound)
            for _ in range(50):
                held[0] = await count()
            assert 0 < held[0] <= 40
            release.set()
            await eventually(lambda: len(seen) == 160)


async def test_a_worker_without_room_reads_on_when_there_is_some() -> None:
    """A single slot still gets through everything."""
    kind, seen = unique(), []
    async with Running(prefetch=1) as here:
        await here.publish(kind, *range(20))
        started = time.monotonic()
        async with here.bus.running(collects(seen, types=[kind])):
            await eventually(lambda: len(seen) == 20)
        assert time.monotonic() - started < 5


async def test_an_entry_without_fields_does_not_count_as_bytes() -> None:
    """The inbox reckons with what it saw, and its bounds hold for tiny entries too."""

    inbox = Inbox(1000, 10_000)
    entries = [Entry(b"%d-0" % n, [b"data", b"x" * 100]) for n in range(100)]
    inbox.put("s", receive("s", "t", entries, 0.0))
    inbox.put("s", receive("s", "t", entries[:1], 0.0))
    assert (inbox.held, inbox.room()) == (100, 0)
    inbox.release("s", [entry.id for entry in entries])
    assert inbox.held == 0
    assert inbox.room() >= 1


async def test_a_group_that_cannot_be_made_again_yet_is_made_later() -> None:
    """The server is away just then: the next read says so again, and the next rebuild works."""
    kind, group, seen, failures = unique(), unique(), [], [1, 2]
    async with Running() as here, here.bus.running(collects(seen, group=group, types=[kind])):
        await here.publish(kind, 1)
        await here.recorder.wait_for_one(Acknowledged)

        async def away(create: Any, groups: Any) -> Any:
            if failures:
                failures.pop()
                raise BusUnavailable("away")
            return await create(groups)

        here.transport.streams.overrides["create_groups"] = away
        here.memory.destroy_group(f"events:{kind}", group)
        await here.recorder.wait_for_one(GroupRebuilt)
        await eventually(lambda: len(seen) == 2)


@pytest.mark.parametrize("audience", ["group", "every_process"])
async def test_looking_for_a_wrong_key_survives_an_outage(audience: Any) -> None:
    """The server goes away while the reader looks which key it was: it looks again."""
    good, bad, seen, failures = unique(), unique(), [], [1]
    here = Running()

    async def away(call: Any, *arguments: Any, **options: Any) -> Any:
        streams = arguments[0] if audience == "every_process" else arguments[2]
        if failures and options["block"] == 0 and len(streams) == 1:
            failures.pop()
            raise BusUnavailable("away")
        return await call(*arguments, **options)

    here.transport.reader_overrides["read_group" if audience == "group" else "read"] = away
    async with here, here.bus.running(collects(seen, types=[bad, good], audience=audience)):
        here.memory.delete_stream(f"events:{bad}")
        here.memory.set_value(f"events:{bad}", b"no stream")
        await here.publish(good, 1)
        told = await here.recorder.wait_for_one(ConnectionChanged)
        await eventually(lambda: seen == [(good, 1)])
    assert (told.part, told.kind) == (f"stream events:{bad}", "stream")
    assert failures == []


@pytest.mark.parametrize("audience", ["group", "every_process"])
async def test_a_reader_whose_only_key_is_wrong_waits_and_stops_when_told(audience: Any) -> None:
    """There is nothing to read; the worker lives, spins not, and ends at once."""
    bad = unique()
    async with Running(drain_timeout=5) as here:
        async with here.bus.running(collects([], types=[bad], audience=audience)):
            here.memory.delete_stream(f"events:{bad}")
            here.memory.set_value(f"events:{bad}", b"no stream")
            await here.recorder.wait_for_one(ConnectionChanged)
            started = time.monotonic()
        assert time.monotonic() - started < 4


async def test_a_worker_stops_in_the_middle_of_recovering(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for room that does not come; told to stop, it ends."""
    read_ahead(monkeypatch)
    kind, begun, broken = unique(), asyncio.Event(), []
    here = Running(prefetch=2, drain_timeout=0.2)

    @consumer(group=unique(), types=[kind])
    async def handler(event: Event) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def breaks(read: Any, *arguments: Any, **options: Any) -> Any:
        result = await read(*arguments, **{**options, "count": 1})
        if len(broken) < 2:
            broken.append(result)
            if len(broken) == 2:
                raise BusUnavailable("the answer was lost")
        return result

    here.transport.reader_overrides["read_group"] = breaks
    async with here:
        await here.publish(kind, 1, 2, 3)
        async with here.bus.running(handler):
            await asyncio.wait_for(begun.wait(), 2)
            await here.recorder.wait_for_one(Recovered)


async def test_a_reader_says_that_it_is_connected_only_when_it_has_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demoted server still tells what is pending; a doubt that arises meanwhile is no sign that it takes reads again."""
    monkeypatch.setattr(reclaimer, "SWEEP", 0.002)
    kind, rounds, is_replica = unique(), list[int](), True

    async def refuses(call: Any, *arguments: Any, **options: Any) -> Any:
        if is_replica:
            raise BusUnavailable("READONLY")
        return await call(*arguments, **options)

    async def slowly(call: Any, *arguments: Any, **options: Any) -> Any:
        before = len(here.transport.records.called("compare_and_set"))
        while is_replica and len(here.transport.records.called("compare_and_set")) < before + 2:
            await asyncio.sleep(0.001)  # a sweep fails meanwhile, and raises the doubt anew
        rounds.append(1)
        return await call(*arguments, **options)

    async with Running() as here, here.bus.running(collects([], types=[kind])):
        here.transport.streams.overrides["pending"] = slowly
        here.transport.records.overrides["compare_and_set"] = refuses
        here.transport.reader_overrides["read_group"] = refuses
        await here.publish(kind, 1)
        await eventually(lambda: len(rounds) >= 4)
        changes = here.recorder.of(ConnectionChanged)
        assert [change.connected for change in changes if change.kind == "reader"] == [False]
        is_replica = False
        await here.recorder.wait_for(lambda _: here.recorder.of(ConnectionChanged)[-1].connected)


async def test_a_consumer_says_itself_how_much_its_workers_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than the setting allows."""
    read_ahead(monkeypatch)
    kind, group, begun = unique(), unique(), asyncio.Event()

    @consumer(group=group, types=[kind], prefetch=3)
    async def handler(event: Event) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with Running(drain_timeout=0.1) as here:
        await here.publish(kind, *range(20))
        async with here.bus.running(handler):
            await asyncio.wait_for(begun.wait(), 10)
            await eventually(lambda: len(here.transport.readers[-1].called("read_group")) > 0)
            for _ in range(20):
                await asyncio.sleep(0.001)
                assert len(await here.pending(kind, group)) <= 3
