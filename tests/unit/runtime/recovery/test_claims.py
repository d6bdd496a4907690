"""Who takes over from whom: the dead, the living, and workers that are told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hyperbus import BusUnavailable, Delivery, Event, consumer
from hyperbus.clock import SystemClock
from hyperbus.errors import ServerError
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.pending_doubt import PendingDoubt
from hyperbus.runtime.reading import group_reader as reader
from hyperbus.runtime.recovery import reclaimer
from hyperbus.runtime.recovery.claims import PAGE, Claims
from hyperbus.signals import Acknowledged, Announcer, Claimed, ConnectionChanged, Recovered, WorkerChanged
from hyperbus.transport import Entry, PendingEntry, record_names
from tests.faults import FaultyTransport
from tests.recorder import Recorder, eventually
from tests.unit.runtime.running import Running, read_ahead, unique


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaimer, "SWEEP", 0.05)
    monkeypatch.setattr(reader, "BLOCK", 0.3)


def acked(here: Running) -> int:
    return sum(signal.count for signal in here.recorder.of(Acknowledged))


def collects(seen: list[Any], **options: Any) -> Any:
    @consumer(**options)
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))

    return handler


async def test_what_a_dead_worker_left_is_taken_over() -> None:
    """All of it, page by page, with its count of deliveries; then the dead one is removed from the group."""
    kind, group, seen = unique(), unique(), []
    async with Running() as here:
        await here.publish(kind, *range(PAGE + 20))
        assert await here.deliver_to_the_dead(kind, group, count=PAGE + 20) == PAGE + 20
        async with here.bus.running(collects(seen, group=group, types=[kind])):
            await here.recorder.wait_for(lambda _: acked(here) == PAGE + 20)

            async def consumers() -> int:
                (info,) = await here.memory.streams.info([f"events:{kind}"])
                return int(info.groups[0].consumers)

            async with asyncio.timeout(10):
                while await consumers() != 1:
                    await asyncio.sleep(0.01)
    assert seen == [(n, 2) for n in range(PAGE + 20)]
    claimed = here.recorder.of(Claimed)
    assert {(signal.owner, signal.stream, signal.group) for signal in claimed} == {("dead", f"events:{kind}", group)}
    assert sum(signal.count for signal in claimed) == PAGE + 20
    assert len(claimed) > 1
    assert sum(signal.count for signal in claimed) == PAGE + 20


async def test_nobody_is_dead_before_one_whole_ttl_was_seen() -> None:
    """A worker that has just started gives the living their chance to say that they live."""
    kind, group, seen = unique(), unique(), []
    async with Running(heartbeat_ttl=0.5) as here:
        await here.publish(kind, 1)
        await here.deliver_to_the_dead(kind, group)
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with here.bus.running(collects(seen, group=group, types=[kind])):
            await here.recorder.wait_for_one(Claimed)
        assert loop.time() - started >= 0.5


async def test_an_outage_starts_the_grace_again() -> None:
    """After the server was away, the living first get the chance to renew what may have run out."""
    kind, group, seen, swept = unique(), unique(), [], []
    async with Running(heartbeat_ttl=0.5) as here:
        await here.publish(kind, 1)
        await here.deliver_to_the_dead(kind, group)
        loop = asyncio.get_running_loop()

        async def away(summaries: Any, *arguments: Any) -> Any:
            if len(swept) < 2:
                swept.append(loop.time())
                raise BusUnavailable("away")
            return await summaries(*arguments)

        here.transport.streams.overrides["pending_summaries"] = away
        async with here.bus.running(collects(seen, group=group, types=[kind])):
            await here.recorder.wait_for_one(Claimed)
        assert loop.time() - swept[-1] >= 0.5


async def test_a_live_worker_keeps_its_entries_however_long_a_handler_runs() -> None:
    """Heartbeats go on beside the handler; nothing is claimed from one that lives."""
    kind, group = unique(), unique()
    begun, release = asyncio.Event(), asyncio.Event()
    others: list[Any] = []

    @consumer(group=group, types=[kind])
    async def slow(event: Event) -> None:
        begun.set()
        await release.wait()

    transport = FaultyTransport()

    async def never(*_: Any, **__: Any) -> Any:
        return False

    async with Running(transport) as here, Running(FaultyTransport(transport.inner.separate())) as there:
        here.transport.records.overrides["compare_and_set"] = never  # it is the other one that sweeps
        async with here.bus.running(slow):
            await here.publish(kind, 1)
            await asyncio.wait_for(begun.wait(), 2)
            async with there.bus.running(collects(others, group=group, types=[kind])):
                sweeps = there.transport.streams
                await eventually(lambda: len(sweeps.called("pending_summaries")) >= 10)
                assert there.recorder.of(Claimed) == []
                release.set()
                await here.recorder.wait_for_one(Acknowledged)
    assert others == []


async def test_a_claim_that_was_answered_unheard_is_found_again() -> None:
    """The server handed entries over and the answer was lost: they are recovered, not left lying."""
    kind, group, seen, lost = unique(), unique(), [], []
    async with Running() as here:
        await here.publish(kind, 1, 2)
        await here.deliver_to_the_dead(kind, group)

        async def breaks(claim: Any, *arguments: Any, **options: Any) -> Any:
            result = await claim(*arguments, **options)
            if not lost:
                lost.append(result)
                raise BusUnavailable("the answer was lost")
            return result

        here.transport.streams.overrides["claim"] = breaks
        async with here.bus.running(collects(seen, group=group, types=[kind])):
            await here.recorder.wait_for_one(Recovered)
            await here.recorder.wait_for(lambda _: acked(here) == 2)
    assert [n for n, _ in seen] == [1, 2]


async def test_a_claim_waits_for_room() -> None:
    """No more is claimed than the worker may hold; the rest comes later."""
    kind, group, seen = unique(), unique(), []
    async with Running(prefetch=5) as here:
        await here.publish(kind, *range(20))
        await here.deliver_to_the_dead(kind, group)
        async with here.bus.running(collects(seen, group=group, types=[kind])):
            await here.recorder.wait_for(lambda _: acked(here) == 20)
    assert max(signal.count for signal in here.recorder.of(Claimed)) <= 5


class TakenMeanwhile:
    """A stream with entries of two dead workers; another sweep takes the second one just before the first claim."""

    def __init__(self) -> None:
        self.owners = {b"1-0": "a", b"2-0": "a", b"3-0": "b"}
        self.asked: list[list[bytes]] = []

    async def pending(self, *_: Any, **__: Any) -> list[PendingEntry]:
        return [PendingEntry(entry_id, owner, 0.0, 1) for entry_id, owner in self.owners.items()]

    async def claim(
        self, _stream: str, _group: str, consumer: str, ids: Sequence[bytes], *, owner: str, in_order: bool
    ) -> list[tuple[Entry, int]]:
        self.asked.append(list(ids))
        self.owners[b"2-0"] = "another sweep"
        taken = [entry_id for entry_id in ids if self.owners[entry_id] == owner]
        self.owners |= dict.fromkeys(taken, consumer)
        return [(Entry(entry_id, [b"data", b"x"]), 1) for entry_id in taken]

    async def suspect(self, _stream: str, _group: str, ids: Sequence[bytes]) -> list[int]:
        return [1] * len(ids)


async def test_nothing_newer_is_claimed_in_order_than_what_another_sweep_took() -> None:
    """Whoever it belonged to: it would be handled before."""
    server, doubt, inbox = TakenMeanwhile(), PendingDoubt(), Inbox(1000, 1_000_000)

    async def nothing(*_: Any, **__: Any) -> dict[bytes, int]:
        return {}

    async def same(_: str, received: Any, *, claimed: bool) -> Any:
        return received

    retries = SimpleNamespace(deaths=SimpleNamespace(count=nothing, keep=lambda _: None), resume=same)
    streams = SimpleNamespace(type_in=lambda _: "t")
    member = Member("g", "me", cast("Any", server), SystemClock(), Announcer())
    claims = Claims(member, inbox, cast("Any", streams), cast("Any", retries), doubt)
    assert await claims.claim_in_order("s", {"a", "b"}, {"a", "b"}) == 1
    assert server.asked == [[b"1-0", b"2-0"]]
    assert inbox.held_ids() == {"s": {b"1-0"}}


async def test_a_key_that_is_no_stream_does_not_keep_others_from_being_taken_over() -> None:
    """The sweep leaves alone what the reader leaves alone."""
    good, bad, group, seen = unique(), unique(), unique(), []
    async with Running() as here:
        await here.publish(good, 1)
        await here.deliver_to_the_dead(good, group)
        here.memory.set_value(f"events:{bad}", b"no stream")
        async with here.bus.running(collects(seen, group=group, types=[bad, good])):
            await here.recorder.wait_for_one(ConnectionChanged)
            await here.recorder.wait_for_one(Claimed)
            await eventually(lambda: seen == [(1, 2)])


async def test_a_sweep_that_is_refused_is_tried_again() -> None:
    """A stream that goes away during a sweep is dealt with by the reader; the next sweep comes."""
    kind, group, seen, refused = unique(), unique(), [], []
    async with Running() as here:
        await here.publish(kind, 1)
        await here.deliver_to_the_dead(kind, group)

        async def refuses(summaries: Any, *arguments: Any) -> Any:
            if not refused:
                refused.append(True)
                raise ServerError("no")
            return await summaries(*arguments)

        here.transport.streams.overrides["pending_summaries"] = refuses
        async with here.bus.running(collects(seen, group=group, types=[kind])):
            await here.recorder.wait_for_one(Claimed)


async def test_a_stopping_worker_finishes_what_runs_and_hands_back_the_rest_untried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The running handler is done and acked; what nobody began keeps its count, and the worker leaves the group."""
    read_ahead(monkeypatch)
    kind, group = unique(), unique()
    begun, release = asyncio.Event(), asyncio.Event()
    done: list[int] = []

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        begun.set()
        await release.wait()
        done.append(event.data["n"])

    async with Running() as here:
        await here.publish(kind, *range(5))
        async with here.bus.running(handler):
            await asyncio.wait_for(begun.wait(), 2)
            await here.recorder.wait_for_one(WorkerChanged)
            asyncio.get_running_loop().call_later(0.02, release.set)
        assert done == [0]
        assert list((await here.pending(kind, group)).values()) == [0, 0, 0, 0]
        (name,) = {signal.consumer for signal in here.recorder.of(WorkerChanged)}
        assert await here.memory.records.get([record_names.heartbeat(name)]) == [None]
        seen: list[Any] = []
        async with here.bus.running(collects(seen, group=group, types=[kind])):
            await eventually(lambda: len(seen) == 4)
        assert seen == [(n, 1) for n in range(1, 5)], "not one of them lost a try"


async def test_a_handler_that_does_not_end_in_time_is_cut_off() -> None:
    """It is cancelled when the drain time is up, and its entry handed over."""
    kind, group = unique(), unique()
    begun, cancelled = asyncio.Event(), asyncio.Event()

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with Running(drain_timeout=0.05) as here:
        await here.publish(kind, 1)
        async with here.bus.running(handler):
            await asyncio.wait_for(begun.wait(), 2)
        assert cancelled.is_set()
        assert list((await here.pending(kind, group)).values()) == [1]
    assert [s.state for s in here.recorder.of(WorkerChanged)] == ["started", "draining", "cut off", "stopped"]


async def test_a_full_worker_stops_without_waiting_for_room() -> None:
    """A reader that waits for room does not hold up the drain."""
    kind = unique()

    @consumer(group=unique(), types=[kind])
    async def handler(event: Event) -> None:
        from hyperbus import Retry

        raise Retry(after=60)

    async with Running(prefetch=2, drain_timeout=5) as here:
        await here.publish(kind, *range(5))
        async with here.bus.running(handler):
            from hyperbus.signals import RetryScheduled

            await here.recorder.wait_for(lambda _: len(here.recorder.of(RetryScheduled)) == 2)
            started = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - started < 2


@pytest.mark.parametrize("how", ["error", "cancellation"])
async def test_leaving_by_an_error_or_a_cancellation_drains_too(how: str) -> None:
    """Handlers that run are finished however the code beside them ended."""
    kind, group, done = unique(), unique(), []
    begun = asyncio.Event()

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        done.append(event.data["n"])

    async with Running() as here:
        await here.publish(kind, 1)

        async def beside() -> None:
            async with here.bus.running(handler):
                await begun.wait()
                if how == "error":
                    raise ZeroDivisionError
                await asyncio.Event().wait()

        task = asyncio.create_task(beside())
        await asyncio.wait_for(begun.wait(), 2)
        if how == "cancellation":
            task.cancel()
        with pytest.raises(ZeroDivisionError if how == "error" else asyncio.CancelledError):
            await task
        assert done == [1]
        assert await here.pending(kind, group) == {}


async def test_a_second_cancellation_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What had not begun is handed back untried all the same."""
    read_ahead(monkeypatch)
    kind, group = unique(), unique()
    begun = asyncio.Event()

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with Running(drain_timeout=30) as here:
        await here.publish(kind, 1, 2)

        async def beside() -> None:
            async with here.bus.running(handler):
                await asyncio.Event().wait()

        task = asyncio.create_task(beside())
        await asyncio.wait_for(begun.wait(), 2)
        task.cancel()
        await here.recorder.wait_for(lambda _: any(s.state == "draining" for s in here.recorder.of(WorkerChanged)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list((await here.pending(kind, group)).values()) == [1, 0]


async def test_the_recorder_tells_what_it_heard() -> None:
    """A wait that is not met fails with the signals there were."""
    recorder = Recorder()
    recorder(ConnectionChanged("x", connected=False))
    with pytest.raises(AssertionError, match="ConnectionChanged"):
        await recorder.wait_for_one(Claimed, within=0.01)
    with pytest.raises(AssertionError, match="true"):
        await eventually(lambda: False, within=0.01)
