"""What waits for its next try: its time is kept over a crash, and a policy of its own holds for each type of error."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from hyperbus import Backoff, BusUnavailable, Delivery, Event, Reject, Retry, consumer
from hyperbus.clock import SystemClock
from hyperbus.errors import ServerError, WrongTypeError
from hyperbus.event.codec import codecs
from hyperbus.runtime.coordination.server_clock import ServerClock
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.decoder import EventDecoder
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.key_order import KeyOrder
from hyperbus.runtime.in_flight.pending_doubt import PendingDoubt
from hyperbus.runtime.in_flight.received import Received, receive
from hyperbus.runtime.outcomes.retry_scheduler import RetryScheduler
from hyperbus.signals import Acknowledged, Announcer, Claimed, EntryDeadLettered, RetryScheduled
from hyperbus.transport import Entry, NewEntry
from tests.faults import FaultyTransport
from tests.recorder import eventually
from tests.unit.runtime.running import Running, body, unique

#: An event as another program would write it.
ENVELOPE = body(0, "t")


def acked(here: Running) -> int:
    return sum(signal.count for signal in here.recorder.of(Acknowledged))


async def due_times(here: Running, kind: str, group: str) -> dict[str, float | None]:
    """Return the schedules of what is pending."""
    ids = list(await here.pending(kind, group))
    found = await here.memory.streams.retry_times(f"events:{kind}", group, [entry_id.encode() for entry_id in ids])
    return dict(zip(ids, found, strict=True))


async def leave_waiting(here: Running, kind: str, group: str, *waits: float) -> list[float]:
    """Let a worker die while one entry for each wait waits for its second try; return when they are due."""
    await here.publish(kind, *range(len(waits)))
    await here.deliver_to_the_dead(kind, group, len(waits))
    ids = [entry_id.encode() for entry_id in await here.pending(kind, group)]
    due = [time.time() + wait for wait in waits]
    retries = [(entry_id, 2, moment) for entry_id, moment in zip(ids, due, strict=True)]
    assert all(await here.memory.streams.schedule_retries(f"events:{kind}", group, "dead", retries))
    return due


async def test_a_wait_is_on_the_server_from_its_beginning_and_off_it_before_the_next_try() -> None:
    """So whoever finds a schedule knows that nobody began the try that it is for."""
    kind, group = unique(), unique()
    found: list[Any] = []

    async with Running() as here:

        @consumer(group=group, types=[kind])
        async def handler(event: Event, delivery: Delivery) -> None:
            found.append((delivery.tries, list((await due_times(here, kind, group)).values())))
            if delivery.tries == 1:
                raise Retry(after=0.3)

        async with here.bus.running(handler):
            await here.publish(kind, 0)
            await here.recorder.wait_for_one(RetryScheduled)
            scheduled = time.time()
            async with asyncio.timeout(10):
                while (due := list((await due_times(here, kind, group)).values())) == [None]:
                    await asyncio.sleep(0.002)
            assert due[0] == pytest.approx(scheduled + 0.3, abs=0.1)
            assert list((await here.pending(kind, group)).values()) == [2]
            await here.recorder.wait_for(lambda _: acked(here) == 1)
    assert found == [(1, [None]), (2, [None])]
    assert time.time() >= due[0]


async def test_who_takes_over_waits_out_the_rest_and_goes_on_counting() -> None:
    """Claimed from a dead worker, an entry is handled when it is due, as the try that it waited for."""
    kind, group, seen = unique(), unique(), []

    @consumer(group=group, types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries, time.time()))

    async with Running() as here:
        due = await leave_waiting(here, kind, group, 1.0, -0.1)
        async with here.bus.running(handler):
            await here.recorder.wait_for_one(Claimed)
            await here.recorder.wait_for(lambda _: acked(here) == 1)
            assert [n for n, *_ in seen] == [1], "one that is due is not held up, and the other is waited for"
            await here.recorder.wait_for(lambda _: acked(here) == 2)
            assert here.transport.streams.called("suspect") == [], "nobody died while handling them"
            assert await due_times(here, kind, group) == {}
            (left,) = await here.memory.streams.retry_times(f"events:{kind}", group, [seen_id(here)])
            assert left is None
    assert [(n, tries) for n, tries, _ in seen] == [(1, 2), (0, 2)]
    assert seen[1][2] == pytest.approx(due[0], abs=0.3)
    assert seen[1][2] >= due[0]


def seen_id(here: Running) -> bytes:
    """Return the id of some entry whose schedule a worker took back."""
    *_, (_, _, ids) = here.transport.streams.called("forget_retries")
    return bytes(ids[0])


async def test_a_worker_that_stops_leaves_what_waits_with_its_time() -> None:
    """Another one waits out the rest."""
    kind, group, seen = unique(), unique(), []

    @consumer(group=group, types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((delivery.tries, time.time()))
        if delivery.tries == 1:
            raise Retry(after=1.5)

    async with Running() as here:
        async with here.bus.running(handler):
            await here.publish(kind, 0)
            await eventually(lambda: here.transport.streams.called("schedule_retries"))
        async with here.bus.running(handler):
            await here.recorder.wait_for(lambda _: acked(here) == 1)
    assert [tries for tries, _ in seen] == [1, 2]
    assert seen[1][1] - seen[0][1] == pytest.approx(1.5, abs=0.3)


@pytest.mark.parametrize("error", [BusUnavailable("away"), ServerError("no")], ids=lambda error: type(error).__name__)
async def test_a_wait_that_cannot_be_written_is_waited_all_the_same(error: Exception) -> None:
    """Only a crash then forgets it; when the server is back it is told."""
    kind, seen = unique(), []

    @consumer(group=unique(), types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))
        if delivery.tries == 1:
            raise Retry(after=0.05 if event.data["n"] == 0 else 1.2)

    refused: list[Any] = []

    async def fails(method: Any, *arguments: Any) -> Any:
        if not refused:
            refused.append(arguments)
            raise error
        return await method(*arguments)

    async def forgets(_: Any, *_arguments: Any) -> Any:
        raise error

    async with Running() as here, here.bus.running(handler):
        here.transport.streams.overrides |= {"schedule_retries": fails, "forget_retries": forgets}
        await here.publish(kind, 0, 1)
        await here.recorder.wait_for(lambda _: acked(here) == 2)
        written = here.transport.streams.called("schedule_retries")
    assert sorted(seen) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    if isinstance(error, BusUnavailable):
        assert len(written) >= 2, "it is told again"


def a_scheduler(
    transport: FaultyTransport, inbox: Inbox, consumer: str, order: KeyOrder | None = None
) -> tuple[RetryScheduler, PendingDoubt]:
    member, doubt = Member("g", consumer, transport.streams, SystemClock(), Announcer()), PendingDoubt()
    return RetryScheduler(member, inbox, doubt, order, ServerClock(transport.records, SystemClock())), doubt


def an_order() -> KeyOrder:
    """All events have one key."""
    return KeyOrder(EventDecoder(codecs(), {}), lambda _: "key")


def items(stream: str, *numbers: int, tries: int = 1) -> list[Received]:
    found = receive(stream, "t", [Entry(b"%d-0" % number, [b"data", ENVELOPE]) for number in numbers], 0.0)
    for item in found:
        item.recovered(tries)
    return found


async def delivered(transport: FaultyTransport, consumer: str, count: int) -> tuple[str, list[Received]]:
    """Append entries and deliver them; return them as received by `consumer`."""
    stream = f"events:{unique()}"
    await transport.inner.streams.append([NewEntry(stream, b"data", ENVELOPE)] * count)
    await transport.inner.streams.create_groups([(stream, "g", b"0-0")])
    reader = transport.inner.open_reader()
    ((_, entries),) = await reader.read_group("g", consumer, [stream], count=count, block=0)
    await reader.close()
    return stream, receive(stream, "t", entries, 0.0)


async def test_what_another_worker_has_is_dropped() -> None:
    """A worker that was thought dead does not try again what was taken from it; it asks what it still has."""
    transport, inbox = FaultyTransport(), Inbox(10, 10_000)
    await transport.open()
    stream, (mine, theirs) = await delivered(transport, "me", 2)
    await transport.inner.streams.claim(stream, "g", "other", [theirs.id], owner="me")
    inbox.put(stream, [mine, theirs])
    assert inbox.take_more(9) == [mine, theirs]
    scheduler, doubt = a_scheduler(transport, inbox, "me")
    running = asyncio.create_task(scheduler.run())
    scheduler.add(mine, 0.05)
    scheduler.add(theirs, 0.05)
    await eventually(lambda: inbox.waiting)
    assert (inbox.take(), inbox.take()) == (mine, None)
    assert doubt.raised
    assert (inbox.holds(stream, mine.id), inbox.holds(stream, theirs.id)) == (True, False)
    assert scheduler.waiting() == []
    running.cancel()
    await transport.close()


async def test_where_an_order_is_kept_nothing_is_dropped() -> None:
    """Others of its key wait behind it, and it has to end before they begin."""
    transport, inbox = FaultyTransport(), Inbox(10, 10_000)
    await transport.open()
    stream, (item,) = await delivered(transport, "other", 1)
    inbox.put(stream, [item])
    inbox.take()
    scheduler, doubt = a_scheduler(transport, inbox, "me", an_order())
    running = asyncio.create_task(scheduler.run())
    scheduler.add(item, 0.02)
    await eventually(lambda: inbox.waiting)
    assert not doubt.raised
    running.cancel()
    await transport.close()


async def test_what_is_due_first_is_handed_out_first() -> None:
    """Whatever became due while the server was asked."""
    transport, inbox = FaultyTransport(), Inbox(10, 10_000)
    await transport.open()
    stream, found = await delivered(transport, "me", 3)
    inbox.hold(stream, found)
    scheduler, _ = a_scheduler(transport, inbox, "me")
    for item, after in zip(found, (0.002, 0.001, 0.0), strict=True):
        scheduler.add(item, after)
    threshold = time.monotonic() + 0.01
    await eventually(lambda: time.monotonic() > threshold)
    running = asyncio.create_task(scheduler.run())
    await eventually(lambda: inbox.waiting == 3)
    assert inbox.take_more(0) == []
    assert [inbox.take() for _ in range(3)] == list(reversed(found))
    running.cancel()
    await transport.close()


async def test_resuming_keeps_tries_and_clears_suspicion_of_what_had_not_begun() -> None:
    """A claim counts what was never tried; an entry without a schedule was being handled, and stays as it is."""
    transport, inbox = FaultyTransport(), Inbox(10, 10_000)
    await transport.open()
    stream, found = await delivered(transport, "me", 3)
    now = time.time()
    retries = [(found[0].id, 3, now + 60), (found[1].id, 3, now - 1)]
    await transport.streams.schedule_retries(stream, "g", "me", retries)
    for item in found:
        item.claimed(4, innocent=2)
    scheduler, _ = a_scheduler(transport, inbox, "me")
    assert await scheduler.resume(stream, found, claimed=True) == [found[1], found[2]]
    assert [(item.tries, item.suspect) for item in found] == [(3, False), (3, False), (4, True)]
    assert inbox.holds(stream, found[0].id)
    assert not inbox.holds(stream, found[1].id)
    assert scheduler.waiting() == [found[0]]
    assert await transport.streams.retry_times(stream, "g", [found[1].id]) == [None]
    assert await scheduler.resume(stream, found[:1], claimed=False) == [], "what is held already is not held twice"
    assert len(scheduler.waiting()) == 1
    (handed_over,) = items(stream, 5, tries=2)
    assert await scheduler.resume(stream, [handed_over], claimed=False) == [handed_over]
    await transport.close()


async def test_first_deliveries_ask_nothing_of_the_server() -> None:
    """Schedules cost nothing where nothing has failed; what holds no schedules is not waited for either."""
    transport, inbox = FaultyTransport(), Inbox(10, 10_000)
    await transport.open()
    scheduler, _ = a_scheduler(transport, inbox, "me")
    found = items("s", 1, 2)
    assert await scheduler.resume("s", found, claimed=False) == found
    assert transport.streams.calls == []

    async def refuses(*_: Any) -> Any:
        raise WrongTypeError("no schedules")

    transport.streams.overrides["retry_times"] = refuses
    again = items("s", 3, tries=2)
    assert await scheduler.resume("s", again, claimed=True) == again

    async def away(*_: Any) -> Any:
        raise BusUnavailable("away")

    transport.streams.overrides["retry_times"] = away
    with pytest.raises(BusUnavailable):
        await scheduler.resume("s", again, claimed=True)
    await transport.close()


@pytest.mark.parametrize("comes_first", [True, False])
async def test_where_an_order_is_kept_what_waits_reserves_its_place(comes_first: bool) -> None:
    """Behind another of its key it waits for that one, and not for its time."""
    transport, inbox = FaultyTransport(), Inbox(10, 10_000)
    await transport.open()
    stream, (item,) = await delivered(transport, "me", 1)
    await transport.streams.schedule_retries(stream, "g", "me", [(item.id, 2, time.time() + 60)])
    item.recovered(2)
    order, (other,) = an_order(), items("s", 1)
    if not comes_first:
        assert order.begin("key", other)
    scheduler, _ = a_scheduler(transport, inbox, "me", order)
    assert await scheduler.resume(stream, [item], claimed=False) == []
    assert scheduler.waiting() == ([item] if comes_first else [])
    assert order.end("key") is (None if comes_first else item)
    await transport.close()


async def test_each_type_of_error_has_its_own_policy() -> None:
    """Through the whole runtime: never again, a few times, and the default for what is not named."""
    kind, group = unique(), unique()
    seen: list[tuple[int, int]] = []
    raises = [ValueError("bad"), ConnectionError("busy"), KeyError("odd"), Reject("no"), Retry()]

    @consumer(
        group=group,
        types=[kind],
        retry={ValueError: None, OSError: Backoff(initial=0, tries=2), Exception: Backoff(initial=0, tries=3)},
    )
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))
        raise raises[event.data["n"]]

    async with Running() as here, here.bus.running(handler):
        await here.publish(kind, *range(5))
        await here.recorder.wait_for(lambda _: len(here.recorder.of(EntryDeadLettered)) == 5)
        letters = await here.dead_letters(kind, group)
    found = {letter.error: (letter.reason, letter.tries) for letter in letters}
    assert found == {
        "ValueError": ("rejected", 1),
        "ConnectionError": ("exhausted", 2),
        "KeyError": ("exhausted", 3),
        "Reject": ("rejected", 1),
        "Retry": ("exhausted", 3),
    }
    assert sorted(seen) == [(0, 1), (1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 1), (4, 1), (4, 2), (4, 3)]


async def test_a_handler_that_takes_too_long_has_failed() -> None:
    """With a TimeoutError, for which there may be a policy."""
    kind, group = unique(), unique()
    tries: list[int] = []

    @consumer(group=group, types=[kind], timeout=0.05, retry={TimeoutError: Backoff(initial=0, tries=2)})
    async def handler(event: Event, delivery: Delivery) -> None:
        tries.append(delivery.tries)
        await asyncio.Event().wait()

    async with Running() as here, here.bus.running(handler):
        await here.publish(kind, 0)
        await here.recorder.wait_for_one(EntryDeadLettered)
        (letter,) = await here.dead_letters(kind, group)
    assert tries == [1, 2]
    assert (letter.reason, letter.error) == ("exhausted", "TimeoutError")


@pytest.mark.parametrize("odd", [0, 1, 2])
async def test_a_stream_that_takes_no_schedule_keeps_no_other_from_it(odd: int) -> None:
    """A crash would cost the others their waits."""
    kinds, group, refused = [unique() for _ in range(3)], unique(), list[str]()

    @consumer(group=group, types=kinds, batch=3, linger=60, retry=Backoff(initial=30, tries=3))
    async def handler(events: list[Event]) -> None:
        raise ValueError

    async def refuses(schedule: Any, stream: str, *arguments: Any) -> Any:
        if stream == f"events:{kinds[odd]}":
            refused.append(stream)
            raise ServerError("no")
        return await schedule(stream, *arguments)

    async with Running() as here:
        here.transport.streams.overrides["schedule_retries"] = refuses
        for kind in kinds:
            await here.publish(kind, 1)
        async with here.bus.running(handler), asyncio.timeout(10):
            for kind in kinds:
                while kind != kinds[odd] and list((await due_times(here, kind, group)).values()) in ([], [None]):
                    await asyncio.sleep(0.005)
            while not refused:
                await asyncio.sleep(0.005)


@pytest.mark.parametrize("odd", [0, 1, 2])
async def test_a_stream_that_forgets_no_schedule_keeps_no_other_from_it(odd: int) -> None:
    """A crash in their next try would look like one before it, again and again."""
    kinds, group, tries = [unique() for _ in range(3)], unique(), list[int]()
    left: dict[str, list[float | None]] = {}

    @consumer(group=group, types=kinds, batch=3, linger=60, retry=Backoff(initial=0.05, jitter=0, tries=3))
    async def handler(events: list[Event], deliveries: list[Delivery]) -> None:
        tries.extend(delivery.tries for delivery in deliveries)
        if deliveries[0].tries == 1:
            raise ValueError
        for event in events:
            left[event.type] = list((await due_times(here, event.type, group)).values())

    async def refuses(forget: Any, stream: str, *arguments: Any) -> Any:
        if stream == f"events:{kinds[odd]}":
            raise ServerError("no")
        return await forget(stream, *arguments)

    here = Running()
    async with here:
        here.transport.streams.overrides["forget_retries"] = refuses
        for kind in kinds:
            await here.publish(kind, 1)
        async with here.bus.running(handler):
            await eventually(lambda: len(left) == 3)
    assert tries == [1, 1, 1, 2, 2, 2]
    assert [left[kind] == [None] for kind in kinds] == [place != odd for place in range(3)]
