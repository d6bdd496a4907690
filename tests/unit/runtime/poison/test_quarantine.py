"""Entries that may kill their process: begun alone, counted, judged only for deaths while alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbus import Backoff, BusUnavailable, Delivery, Event, consumer
from hyperbus.clock import Clock, SystemClock
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import Received
from hyperbus.runtime.poison import isolation as solitude
from hyperbus.runtime.poison.quarantine import MOST_DEATHS, PoisonError, Quarantine
from hyperbus.runtime.poison.start_counts import StartCounts
from hyperbus.runtime.recovery import reclaimer
from hyperbus.signals import Announcer, Claimed, EntryDeadLettered, WorkerChanged
from tests.faults import FaultyTransport
from tests.recorder import eventually
from tests.unit.runtime.running import Running, read_ahead, unique


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaimer, "SWEEP", 0.02)


async def left_by_the_dead(here: Running, kind: str, *numbers: int, deliveries: int = 2) -> list[bytes]:
    """Publish events, and let them have been delivered so often to workers that died; return their ids."""
    await here.publish(kind, *numbers)
    await here.deliver_to_the_dead(kind, "g")
    streams = here.memory.streams
    ids = [entry.id for entry in await streams.pending(f"events:{kind}", "g")]
    await streams.set_delivery_counts(f"events:{kind}", "g", "dead", [(entry_id, deliveries) for entry_id in ids])
    return ids


async def deaths(here: Running, kind: str, ids: list[bytes]) -> list[int]:
    found: list[int] = await here.memory.streams.suspicions(f"events:{kind}", "g", ids)
    return found


class Neighbours:
    """Notes how many handlers run beside each other."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.beside: dict[int, int] = {}
        self.tries: dict[int, int] = {}
        self.running = 0

        @consumer(group="g", types=[kind], concurrency=8, **options)
        async def handler(event: Event, delivery: Delivery) -> None:
            self.running += 1
            self.beside[event.data["n"]] = self.running
            self.tries[event.data["n"]] = delivery.tries
            await asyncio.sleep(0.02)
            self.beside[event.data["n"]] = max(self.running, self.beside[event.data["n"]])
            self.running -= 1

        self.handler = handler


@pytest.mark.parametrize(("deliveries", "alone"), [(1, False), (2, True)])
async def test_what_was_claimed_twice_runs_alone(deliveries: int, alone: bool) -> None:
    """One death may be anybody's fault; after the second all that it held is run one by one, and cleared."""
    kind = unique()
    neighbours = Neighbours(kind)
    async with Running() as here:
        ids = await left_by_the_dead(here, kind, *range(5), deliveries=deliveries)
        async with here.bus.running(neighbours.handler):
            await eventually(lambda: len(neighbours.beside) == 5 and not neighbours.running)
            await eventually(lambda: here.recorder.of(Claimed))
        assert await deaths(here, kind, ids) == [0] * 5
    assert (set(neighbours.beside.values()) == {1}) is alone
    assert set(neighbours.tries.values()) == {deliveries + 1}


async def test_it_is_judged_after_two_deaths_while_alone() -> None:
    """It is not begun a third time; its neighbours are handled, one at a time."""
    kind = unique()
    neighbours = Neighbours(kind)
    async with Running() as here:
        ids = await left_by_the_dead(here, kind, *range(3), deliveries=5)
        for _ in range(MOST_DEATHS):
            await here.memory.streams.suspect(f"events:{kind}", "g", [ids[1]])
        async with here.bus.running(neighbours.handler):
            letter = await here.recorder.wait_for_one(EntryDeadLettered)
            await eventually(lambda: set(neighbours.beside) == {0, 2})
        assert (letter.entry_id, letter.reason) == (ids[1].decode(), "poison")
        assert letter.error == "PoisonError"
        assert await deaths(here, kind, ids) == [0, 0, 0]
        assert len(await here.dead_letters(kind, "g")) == 1


async def test_deaths_in_company_are_never_held_against_it() -> None:
    """However often it was delivered: only what was begun alone is counted."""
    kind = unique()
    neighbours = Neighbours(kind)
    async with Running() as here:
        await left_by_the_dead(here, kind, 1, deliveries=50)
        async with here.bus.running(neighbours.handler):
            await eventually(lambda: 1 in neighbours.beside)
        assert here.recorder.of(EntryDeadLettered) == []
    assert neighbours.tries == {1: 51}


async def test_a_handler_that_is_cut_off_has_killed_nobody() -> None:
    """A suspect that takes longer than the drain is not judged for it, however often it is cut off."""
    kind, begun = unique(), asyncio.Event()

    @consumer(group="g", types=[kind])
    async def hangs(event: Event) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with Running(drain_timeout=0.05) as here:
        ids = await left_by_the_dead(here, kind, 1, deliveries=2)
        for _ in range(MOST_DEATHS + 1):
            begun.clear()
            async with here.bus.running(hangs):
                await asyncio.wait_for(begun.wait(), 5)
                assert await deaths(here, kind, ids) == [1]
            assert await deaths(here, kind, ids) == [0]
        assert here.recorder.of(EntryDeadLettered) == []


async def test_it_runs_uncounted_when_it_cannot_be_counted() -> None:
    """A server that is away costs a judgement, not an entry."""
    kind = unique()
    neighbours = Neighbours(kind)
    async with Running() as here:
        ids = await left_by_the_dead(here, kind, 1, deliveries=9)
        for _ in range(MOST_DEATHS):
            await here.memory.streams.suspect(f"events:{kind}", "g", ids)

        async def away(*_: Any) -> Any:
            raise BusUnavailable("away")

        here.transport.streams.overrides |= {"suspect": away, "clear_suspects": away}
        async with here.bus.running(neighbours.handler):
            await eventually(lambda: 1 in neighbours.beside)
        assert here.recorder.of(EntryDeadLettered) == []


async def test_a_batch_takes_no_suspect_in() -> None:
    """It is a batch by itself, so that it takes nobody with it."""
    kind, batches = unique(), list[list[int]]()

    @consumer(group="g", types=[kind], batch=10)
    async def handler(events: list[Event]) -> None:
        batches.append([event.data["n"] for event in events])

    async with Running() as here:
        await left_by_the_dead(here, kind, 0, 1, 2, deliveries=2)
        async with here.bus.running(handler):
            await eventually(lambda: sum(map(len, batches)) == 3)
    assert sorted(batches) == [[0], [1], [2]]


async def test_many_suspects_beside_a_handler_that_never_ends_starve_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait for it together and not one after another; meanwhile others begin, in their own worker too."""
    monkeypatch.setattr(solitude, "PATIENCE", 0.1)
    kind, long_kind = unique(), unique()
    seen: list[int] = []
    most_beside = beside = 0
    begun, end = asyncio.Event(), asyncio.Event()

    @consumer(group="long", types=[long_kind])
    async def long_one(event: Event) -> None:
        begun.set()
        await end.wait()

    @consumer(group="g", types=[kind], concurrency=2)
    async def handler(event: Event) -> None:
        nonlocal most_beside, beside
        beside += 1
        most_beside = max(most_beside, beside)
        await asyncio.sleep(0)
        seen.append(event.data["n"])
        beside -= 1

    async with Running() as here:
        await left_by_the_dead(here, kind, *range(50))
        async with here.bus.running(long_one, handler):
            await here.publish(long_kind, 0)
            await asyncio.wait_for(begun.wait(), 3)
            await eventually(lambda: here.bus._services.isolation.wanted)
            await here.publish(kind, 100)
            await eventually(lambda: 100 in seen)
            assert seen == [100], "others have their time before suspects give up waiting"
            await eventually(lambda: len(seen) == 51)
            await here.publish(kind, *range(200, 210))
            await eventually(lambda: len(seen) == 61)
            assert here.transport.streams.called("suspect") == [], "what did not run alone is not counted"
            assert most_beside <= 2
            end.set()


async def test_a_suspect_that_takes_long_keeps_others_waiting_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then others begin beside it, and nothing that happens to the process counts against it."""
    monkeypatch.setattr(solitude, "PATIENCE", 0.05)
    kind, other_kind = unique(), unique()
    seen: list[int] = []
    begun, end = asyncio.Event(), asyncio.Event()

    @consumer(group="g", types=[kind])
    async def handler(event: Event) -> None:
        begun.set()
        await end.wait()

    @consumer(group="others", types=[other_kind])
    async def other(event: Event) -> None:
        seen.append(event.data["n"])

    async with Running() as here:
        ids = await left_by_the_dead(here, kind, 0)
        async with here.bus.running(handler, other):
            await asyncio.wait_for(begun.wait(), 3)
            assert await deaths(here, kind, ids) == [1]
            await here.publish(other_kind, 1)
            await eventually(lambda: seen == [1])
            assert await deaths(here, kind, ids) == [0]
            end.set()
        assert await here.pending(kind, "g") == {}


async def test_nobody_begins_beside_a_suspect_that_the_server_cannot_be_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As long as its death would count as one while alone, it is alone."""
    monkeypatch.setattr(solitude, "PATIENCE", 0.05)
    monkeypatch.setattr("hyperbus.runtime.poison.quarantine._PAUSE", 0.02)
    kind, other_kind = unique(), unique()
    seen: list[int] = []
    end, away = asyncio.Event(), [True]

    @consumer(group="g", types=[kind])
    async def handler(event: Event) -> None:
        await end.wait()

    @consumer(group="others", types=[other_kind])
    async def other(event: Event) -> None:
        seen.append(event.data["n"])

    async def clear(method: Any, *arguments: Any) -> Any:
        if away[0]:
            raise BusUnavailable("away")
        return await method(*arguments)

    async with Running() as here:
        here.transport.streams.overrides["clear_suspects"] = clear
        await left_by_the_dead(here, kind, 0)
        async with here.bus.running(handler, other):
            await eventually(lambda: len(here.transport.streams.called("clear_suspects")) > 2)
            await here.publish(other_kind, 1)
            await eventually(lambda: len(here.transport.streams.called("clear_suspects")) > 5)
            assert seen == []
            away[0] = False
            await eventually(lambda: seen == [1])
            end.set()


async def test_a_retry_does_not_take_the_turn_of_a_suspect() -> None:
    """What goes before all others in the inbox waits as well."""
    kind, seen = unique(), []
    first = asyncio.Event()

    @consumer(group="g", types=[kind], retry=Backoff(initial=0.001, tries=10_000, jitter=0, maximum=0.001))
    async def handler(event: Event, delivery: Delivery) -> None:
        if event.data["n"] == 99 and len(seen) < 20:
            first.set()
            raise ValueError
        seen.append(event.data["n"])

    async with Running() as here:
        await left_by_the_dead(here, kind, *range(20))
        await here.publish(kind, 99)
        async with here.bus.running(handler):
            await eventually(lambda: len(seen) == 21)
    assert first.is_set()
    assert sorted(seen[:20]) == list(range(20))


async def test_suspects_that_wait_are_handed_over_when_the_worker_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not only when the drain time is up; no try is counted."""
    monkeypatch.setattr(solitude, "PATIENCE", 30)
    kind, long_kind = unique(), unique()
    begun = asyncio.Event()

    @consumer(group="long", types=[long_kind])
    async def long_one(event: Event) -> None:
        begun.set()
        await asyncio.Event().wait()

    @consumer(group="g", types=[kind])
    async def handler(event: Event) -> None:
        raise AssertionError

    async with Running(drain_timeout=0.2) as here:
        await left_by_the_dead(here, kind, *range(5))
        async with here.bus.running(long_one, handler):
            await here.publish(long_kind, 0)
            await asyncio.wait_for(begun.wait(), 3)
            await eventually(lambda: here.bus._services.isolation.wanted)
            await here.publish(kind, 7)
        assert sorted((await here.pending(kind, "g")).values()) == [0, 2, 2, 2, 2, 2]
        cut_off = [signal.group for signal in here.recorder.of(WorkerChanged) if signal.state == "cut off"]
        assert cut_off == ["long"]


async def test_a_suspect_that_cannot_be_read_has_its_turn_and_no_more() -> None:
    """It becomes a dead letter; the next one, and others, begin at once."""
    kind, seen = unique(), []

    @consumer(group="g", types=[kind])
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async with Running() as here:
        await here.append(kind, b"broken \xff", b"{}")
        await left_by_the_dead(here, kind, 1)
        async with here.bus.running(handler):
            await eventually(lambda: len(here.recorder.of(EntryDeadLettered)) == 2 and seen == [1])
            await here.publish(kind, 2)
            await eventually(lambda: seen == [1, 2])


async def test_a_lane_that_gathers_a_batch_lets_a_suspect_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only lane lingers when the suspect's turn begins: neither waits for the other, and all keep their order."""
    begin = solitude.Isolation.__init__

    def resting(self: solitude.Isolation, clock: Clock) -> None:
        begin(self, clock)
        self._rest_until = clock.monotonic() + 0.5

    monkeypatch.setattr(solitude.Isolation, "__init__", resting)
    kind, seen = unique(), list[list[int]]()

    @consumer(group="g", types=[kind], batch=10, linger=1.0)
    async def handler(events: list[Event]) -> None:
        seen.append([event.data["n"] for event in events])

    async with Running() as here:
        await left_by_the_dead(here, kind, 1)
        async with here.bus.running(handler):
            await here.recorder.wait_for_one(Claimed)
            await here.publish(kind, 2, 3, 4)
            await eventually(lambda: sum(map(len, seen)) == 4)
    assert seen == [[1], [2, 3, 4]]


async def test_a_suspect_that_still_runs_when_its_worker_stops_counts_until_it_has_ended() -> None:
    """If the process dies of it while it drains, that is a death while alone; another suspect is handed over."""
    kind, begun, release = unique(), asyncio.Event(), asyncio.Event()

    @consumer(group="g", types=[kind])
    async def handler(event: Event) -> None:
        begun.set()
        await release.wait()

    async with Running(drain_timeout=60) as here:
        ids = await left_by_the_dead(here, kind, 1, 2)
        running = here.bus.running(handler)
        await running.__aenter__()
        await asyncio.wait_for(begun.wait(), 10)
        assert sorted(await deaths(here, kind, ids)) == [0, 1]
        stopping = asyncio.create_task(running.__aexit__(None, None, None))
        await eventually(lambda: here.transport.streams.called("set_delivery_counts"))
        for _ in range(200):  # what would clear it runs in other tasks
            await asyncio.sleep(0)
        assert sorted(await deaths(here, kind, ids)) == [0, 1]
        release.set()
        await stopping
        assert await deaths(here, kind, ids) == [0, 0]


@pytest.mark.parametrize("tries", [(3, 5, 9), (9, 3, 5), (5, 9, 3)])
async def test_suspects_are_waited_for_as_long_as_the_most_tried_of_them_may(tries: tuple[int, ...]) -> None:
    """Whichever came first: the longer it has been near deaths, the longer others wait for it."""
    asked: list[int] = []

    class Noting(solitude.Isolation):
        def alone(self, tries: int) -> Any:
            asked.append(tries)
            return super().alone(tries)

    here = FaultyTransport()
    member = Member("g", "me", here.streams, SystemClock(), Announcer())
    quarantine = Quarantine(member, StartCounts.of_group(member), Noting(SystemClock()), Inbox(100, 100_000))
    for number, count in enumerate(tries):
        quarantine.add(Received("s", "t", b"%d-0" % number, [], 0, 0.0, tries=count, suspect=True))
    admitting = asyncio.create_task(quarantine.run())
    await eventually(lambda: quarantine.admitted is not None)
    admitting.cancel()
    await asyncio.wait((admitting,))
    assert asked == [9]


async def test_what_is_judged_in_the_last_moment_becomes_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all handlers have ended nobody waits for judgements any more; its count is gone by then."""
    read_ahead(monkeypatch)
    kind, begun, release = unique(), asyncio.Event(), asyncio.Event()

    @consumer(group="g", types=[kind])
    async def handler(event: Event) -> None:
        begun.set()
        await release.wait()

    async def judges_at_the_end(self: Quarantine) -> None:
        await begun.wait()
        while (item := self._inbox.take()) is None:
            await asyncio.sleep(0.001)
        release.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.judged.put_nowait((item, PoisonError("it killed its process")))

    monkeypatch.setattr(Quarantine, "run", judges_at_the_end)
    async with Running(drain_timeout=10) as here:
        await here.publish(kind, 1, 2)
        async with here.bus.running(handler):
            await asyncio.wait_for(release.wait(), 10)
        assert [letter.reason for letter in await here.dead_letters(kind, "g")] == ["poison"]
        assert await here.pending(kind, "g") == {}
