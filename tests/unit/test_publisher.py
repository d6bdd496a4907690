"""Publishing, through the bus, on memory; a transport around it fails where a test wants it to."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from hyperbus import BusUnavailable, Event, PublishFailed, PublishUncertain
from hyperbus.errors import (
    DeclarationError,
    EncodeError,
    EventTooLargeError,
    InvalidSettingError,
    OutOfMemoryError,
    PublishRefusedError,
)
from hyperbus.publisher import STREAM_DIRECTORY
from hyperbus.publisher.publisher import MANY
from hyperbus.signals import ConnectionChanged, Published, PublishErred
from tests.faults import FaultyTransport
from tests.recorder import Recorder, eventually
from tests.unit.publishing import STREAM, Gate, Placed, a_bus, appended, away, numbers


async def test_publishes_side_by_side_share_a_round_trip() -> None:
    """What gathers while a round trip is under way goes out in the next one, whole and in order."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        await bus.publish(Placed(number=0))
        gate = transport.streams.overrides["append"] = Gate()
        first = asyncio.create_task(bus.publish(Placed(number=1)))
        await gate.reached.wait()
        others = [asyncio.create_task(bus.publish(Placed(number=n))) for n in range(2, 50)]
        await asyncio.sleep(0)
        gate.open.set()
        ids = await asyncio.gather(first, *others)
    assert [len(entries) for entries in appended(transport)] == [1, 1, 48]
    assert await stored_after_close(transport) == list(range(50))
    assert ids == sorted(ids, key=lambda text: tuple(map(int, text.split("-"))))


async def test_who_is_answered_first_goes_on_first() -> None:
    """A publisher whose event is stored does not wait for the others of its round trip, whatever becomes of those."""
    transport, rest = FaultyTransport(), asyncio.Event()

    async def halts(append: Any, entries: Any, tell: Any) -> Any:
        entries = list(entries)
        tell(stored := await append(entries[:3]))
        await rest.wait()
        return stored + [PublishUncertain("the connection broke") for _ in entries[3:]]

    async with a_bus(transport) as bus:
        await bus.publish(Placed(number=0))
        transport.streams.overrides["append"] = halts
        tasks = [asyncio.create_task(bus.publish(Placed(number=n))) for n in range(1, 6)]
        ids = await asyncio.wait_for(asyncio.gather(*tasks[:3]), 1)
        assert not tasks[3].done()
        rest.set()
        for task in tasks[3:]:
            with pytest.raises(PublishUncertain, match="broke"):
                await task
        entries = await transport.inner.streams.range(STREAM)
    assert [entry.id.decode() for entry in entries[1:]] == ids


async def test_what_becomes_of_the_callers_list_changes_nothing() -> None:
    """The events are those of the moment of the call, of whatever kind of sequence."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        await bus.publish_many(deque([Placed(number=n) for n in range(50)]))
        gate = transport.streams.overrides["append"] = Gate()
        events = [Placed(number=n) for n in range(50, 3_000)]
        publishing = asyncio.create_task(bus.publish_many(events))
        await gate.reached.wait()
        events.clear()
        gate.open.set()
        assert len(await publishing) == 2_950
        assert await numbers(transport) == list(range(3_000))


async def stored_after_close(transport: FaultyTransport, stream: str = STREAM) -> list[int]:
    await transport.open()
    try:
        return await numbers(transport, stream)
    finally:
        await transport.close()


async def test_publish_waits_for_room_and_gives_up_at_its_deadline() -> None:
    """A full buffer makes the next publisher wait, and tells it at its deadline that nothing was sent."""
    transport = FaultyTransport()
    async with a_bus(transport, publish_buffer=2) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        held = [asyncio.create_task(bus.publish(Placed(number=n))) for n in range(2)]
        await gate.reached.wait()
        with pytest.raises(BusUnavailable, match="no room"):
            await bus.publish(Placed(number=9), timeout=0.02)
        waiting = asyncio.create_task(bus.publish(Placed(number=2)))
        gate.open.set()
        await asyncio.gather(*held, waiting)
        assert await numbers(transport) == [0, 1, 2]


async def test_room_is_counted_in_bytes_too() -> None:
    """A large event fills the buffer by itself, yet one that is alone always fits."""
    transport = FaultyTransport()
    async with a_bus(transport, publish_buffer_bytes=1000) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        large = asyncio.create_task(bus.publish(Placed(text="x" * 5000)))
        await gate.reached.wait()
        with pytest.raises(BusUnavailable, match="no room"):
            await bus.publish(Placed(), timeout=0.02)
        gate.open.set()
        await large


async def test_room_of_events_whose_time_was_over_is_free_again() -> None:
    """Who waits for room gets it when those in the buffer have given up, and not only when something was sent."""
    transport = FaultyTransport()
    async with a_bus(transport, publish_buffer=1) as bus:
        transport.records.overrides["add_members"] = away(3)
        hopeless = asyncio.create_task(bus.publish(Placed(number=1), timeout=0.02))
        await asyncio.sleep(0)
        patient = asyncio.create_task(bus.publish(Placed(number=2), timeout=2.0))
        with pytest.raises(BusUnavailable):
            await hopeless
        await asyncio.wait_for(patient, 1.0)
        assert await numbers(transport) == [2]


async def test_an_answer_that_does_not_come_is_uncertain_and_nothing_is_sent_twice() -> None:
    """What was sent and not answered in time is reported as such, and never sent again."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        with pytest.raises(PublishUncertain, match="may be stored"):
            await bus.publish(Placed(number=1), timeout=0.02)
        gate.open.set()
        await bus.publish(Placed(number=2))
        assert await numbers(transport) == [1, 2]


async def test_what_the_transport_calls_uncertain_is_not_sent_again() -> None:
    """A broken connection after sending reaches the caller; there is one append and no second."""
    transport = FaultyTransport()

    async def breaks(append: Any, entries: Any, **_named: Any) -> Any:
        return [PublishUncertain("the connection broke") for _ in entries]

    async with a_bus(transport) as bus:
        await bus.publish(Placed(number=1))
        transport.streams.overrides["append"] = breaks
        with pytest.raises(PublishUncertain, match="broke"):
            await bus.publish(Placed(number=2))
        del transport.streams.overrides["append"]
        await bus.publish(Placed(number=3))
    assert [len(entries) for entries in appended(transport)] == [1, 1, 1]


async def test_a_refusal_reaches_only_the_event_it_is_for() -> None:
    """A key that is no stream refuses its own event and stores the neighbours of the same round trip."""
    transport = FaultyTransport()
    transport.inner.set_value("events:publisher_test.refused", b"x")
    async with a_bus(transport) as bus:
        refused, stored = await asyncio.gather(
            bus.publish(Event(type="publisher_test.refused", data={})), bus.publish(Placed()), return_exceptions=True
        )
        assert isinstance(refused, PublishRefusedError)
        assert isinstance(stored, str)


async def test_while_the_server_is_away_what_was_not_sent_is_tried_again() -> None:
    """An outage shorter than the timeout is not seen by the caller, and both its ends are announced."""
    transport, recorder = FaultyTransport(), Recorder()
    async with a_bus(transport, listeners=[recorder]) as bus:
        await bus.publish(Placed(number=0))
        transport.streams.overrides["append"] = away(2)
        await asyncio.gather(*(bus.publish(Placed(number=n)) for n in range(1, 4)))
        assert await numbers(transport) == [0, 1, 2, 3]
    changes = recorder.of(ConnectionChanged)
    assert [(change.part, change.connected, change.error) for change in changes] == [
        ("publisher", False, "nobody is there"),
        ("publisher", True, ""),
    ]


async def test_an_outage_that_meets_the_directory_first_is_announced_too() -> None:
    """A new stream is listed before its first entry; a server that is away by then is told as away."""
    transport, recorder = FaultyTransport(), Recorder()
    transport.records.overrides["add_members"] = away(1)
    async with a_bus(transport, listeners=[recorder]) as bus:
        await bus.publish(Placed())
    assert [change.connected for change in recorder.of(ConnectionChanged)] == [False, True]
    assert recorder.of(PublishErred)[0] == PublishErred(1, "BusUnavailable")


async def test_an_event_reported_as_not_sent_is_never_sent() -> None:
    """Its time is over while its stream is being listed: the caller hears "not sent", and that stays true."""
    transport = FaultyTransport()
    listing = asyncio.Event()

    async def slow(add: Any, *arguments: Any) -> Any:
        await listing.wait()
        return await add(*arguments)

    transport.records.overrides["add_members"] = slow
    async with a_bus(transport) as bus:
        with pytest.raises(BusUnavailable, match="not sent in time"):
            await bus.publish(Placed(number=1), timeout=0.02)
        listing.set()
        await bus.publish(Placed(number=2))
        assert await numbers(transport) == [2]


async def test_a_server_that_stays_away_ends_in_bus_unavailable_by_the_deadline() -> None:
    """The caller learns that nothing was sent, and what the last error was."""
    transport = FaultyTransport()
    transport.streams.overrides["append"] = away(10**6)
    async with a_bus(transport) as bus:
        started = asyncio.get_running_loop().time()
        results = await asyncio.gather(
            bus.publish(Placed(), timeout=0.3), bus.publish(Placed(), timeout=0.05), return_exceptions=True
        )
        assert [type(result) for result in results] == [BusUnavailable, BusUnavailable]
        assert "nobody is there" in str(results[0])
        assert asyncio.get_running_loop().time() - started < 1.5


async def test_a_caller_that_is_cancelled_before_sending_sends_nothing() -> None:
    """A publish that was cancelled while it waited in the buffer leaves no entry behind."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        first = asyncio.create_task(bus.publish(Placed(number=1)))
        await gate.reached.wait()
        second = asyncio.create_task(bus.publish(Placed(number=2)))
        await asyncio.sleep(0)
        second.cancel()
        third = asyncio.create_task(bus.publish(Placed(number=3)))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, third)
        assert second.cancelled()
        assert await numbers(transport) == [1, 3]


async def test_publish_many_keeps_order_in_one_round_trip_for_each_2000() -> None:
    """Ids come back in the order of the events, also where a chunk has a stream that is new."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        await bus.publish(Placed(number=-1))

        async def slow(add: Any, *arguments: Any) -> Any:
            for _ in range(20):
                await asyncio.sleep(0)
            return await add(*arguments)

        transport.records.overrides["add_members"] = slow
        events: list[Any] = [Placed(number=n) for n in range(2 * MANY)]
        events[0] = Event(type="publisher_test.born", data={"number": 0})
        ids = await bus.publish_many(events)
        assert len(ids) == 2 * MANY
        assert await numbers(transport) == [-1, *range(1, 2 * MANY)]
    assert [len(entries) for entries in appended(transport)] == [1, MANY, MANY]
    assert await stored_after_close(transport, "events:publisher_test.born") == [0]


async def test_publish_many_of_nothing_is_nothing() -> None:
    """No events, no ids, no round trip."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        assert await bus.publish_many([]) == []
    assert appended(transport) == []


async def test_publish_many_tells_what_became_of_each_event() -> None:
    """One that cannot be encoded and one that is too large hold back nobody; results are in order."""
    transport, seen = FaultyTransport(), []
    async with a_bus(transport, max_event_bytes=1000) as bus:
        bus.on_publish("*", lambda event: seen.append(event.data))
        with pytest.raises(PublishFailed, match="2 of 4 events stored, 0 uncertain, 2 not stored") as caught:
            await bus.publish_many(
                [
                    Placed(number=1),
                    Event(type="publisher_test.placed", data={"what": object()}),
                    Placed(text="x" * 2000),
                    Placed(number=2),
                ]
            )
        first, unencodable, large, last = caught.value.results
        assert isinstance(first, str)
        assert isinstance(last, str)
        assert isinstance(unencodable, EncodeError)
        assert isinstance(large, EventTooLargeError)
        assert await numbers(transport) == [1, 2]
    assert [data.number for data in seen] == [1, 2], "local handlers see what was stored, of a failed call too"


async def test_publish_many_tries_again_what_was_not_sent() -> None:
    """An outage in the middle delays the rest and keeps the order."""
    transport = FaultyTransport()
    transport.streams.overrides["append"] = away(2)
    async with a_bus(transport) as bus:
        await bus.publish_many([Placed(number=n) for n in range(MANY + 5)])
        assert await numbers(transport) == list(range(MANY + 5))


async def test_publish_many_gives_up_at_its_deadline() -> None:
    """None was sent: `BusUnavailable`. Sent and not answered: each is uncertain."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        transport.records.overrides["add_members"] = away(10**6)
        with pytest.raises(BusUnavailable, match="none of 2 events was sent"):
            await bus.publish_many([Placed(), Placed()], timeout=0.06)
        transport.records.overrides["add_members"] = lambda *_: asyncio.Event().wait()
        with pytest.raises(BusUnavailable, match="not sent in time"):
            await bus.publish_many([Placed()], timeout=0.02)
        del transport.records.overrides["add_members"]
        transport.streams.overrides["append"] = Gate()
        await transport.inner.records.add_members(STREAM_DIRECTORY, {STREAM: 1.0})
        with pytest.raises(PublishFailed) as caught:
            await bus.publish_many([Placed()], timeout=0.02)
        assert isinstance(caught.value.results[0], PublishUncertain)


async def test_a_cancelled_publish_many_leaves_no_task_behind() -> None:
    """Its round trip is ended before the caller goes on."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        await transport.inner.records.add_members(STREAM_DIRECTORY, {STREAM: 1.0})
        publishing = asyncio.create_task(bus.publish_many([Placed()]))
        await gate.reached.wait()
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "hyperbus publish_many"]


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (Event(type="publisher_test.placed", data={"what": object()}), EncodeError),
        (Placed(text="x" * 2000), EventTooLargeError),
        (Event(type="Not A Type", data={}), DeclarationError),
    ],
)
async def test_what_cannot_be_published_is_refused_before_anything_is_sent(event: Any, error: type[Exception]) -> None:
    """The caller gets the reason, and the server nothing."""
    transport = FaultyTransport()
    async with a_bus(transport, max_event_bytes=1000) as bus:
        with pytest.raises(error):
            await bus.publish(event)
    assert appended(transport) == []


async def test_closing_sends_what_still_waits() -> None:
    """Events that were handed over before the bus closed are stored, and their callers told."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        publishing = [asyncio.create_task(bus.publish(Placed(number=n))) for n in range(3)]
        await asyncio.sleep(0)
    assert all(isinstance(task.result(), str) for task in publishing)
    assert await stored_after_close(transport) == [0, 1, 2]


async def test_who_waits_for_room_while_the_bus_closes_is_told() -> None:
    """A publisher without room learns that its event was not sent."""
    transport = FaultyTransport()
    bus = a_bus(transport, publish_buffer=1)
    async with bus:
        gate = transport.streams.overrides["append"] = Gate()
        first = asyncio.create_task(bus.publish(Placed(number=1)))
        await gate.reached.wait()
        second = asyncio.create_task(bus.publish(Placed(number=2)))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.02, gate.open.set)
    assert isinstance(await first, str)
    with pytest.raises(BusUnavailable, match="closed"):
        await second


async def test_a_closed_bus_refuses_to_publish() -> None:
    """Before and after its time, every way in says what to do."""
    bus = a_bus(FaultyTransport())
    for _ in range(2):
        with pytest.raises(BusUnavailable, match="async with"):
            await bus.publish(Placed())
        with pytest.raises(BusUnavailable, match="async with"):
            await bus.publish_many([Placed()])
        async with bus:
            await bus.publish(Placed())


async def test_an_append_that_breaks_its_contract_leaves_nobody_waiting() -> None:
    """Whatever a transport raises, the callers whose events were under way hear of it."""
    transport = FaultyTransport()

    async def breaks(*_: Any, **_named: Any) -> Any:
        raise ZeroDivisionError

    await transport.open()
    await transport.inner.records.add_members(STREAM_DIRECTORY, {STREAM: 1.0})
    transport.streams.overrides["append"] = breaks
    bus = a_bus(transport)
    await bus.__aenter__()
    with pytest.raises(PublishUncertain, match="ZeroDivisionError"):
        await bus.publish(Placed())
    with pytest.raises(ZeroDivisionError):
        await bus.__aexit__(None, None, None)


async def test_local_handlers_see_what_was_stored() -> None:
    """Plain and async handlers run after the event is stored; one that fails harms nobody."""
    transport = FaultyTransport()
    seen: list[str] = []

    def fails(_event: Event) -> None:
        raise ZeroDivisionError

    async def remembers(event: Event) -> None:
        seen.append(f"async {event.data.number}")

    def answers(event: Event) -> Any:
        seen.append(f"plain {event.data.number}")
        return "no awaitable"

    async with a_bus(transport) as bus:
        for handler in (fails, remembers, answers):
            bus.on_publish("publisher_test.*", handler)
        bus.on_publish("other", lambda _: seen.append("never"))
        await bus.publish(Placed(number=1))
        await bus.publish_many([Placed(number=2)])
        with pytest.raises(EncodeError):
            await bus.publish(Event(type="publisher_test.placed", data=object()))
    assert seen == ["async 1", "plain 1", "async 2", "plain 2"]


async def test_what_is_given_with_the_call_wins_over_the_event() -> None:
    """`source_agent` falls back to the bus's own; workflow and correlation come from call or event."""
    import msgspec

    transport = FaultyTransport()
    async with a_bus(transport, source_agent="coordinator") as bus:
        await bus.publish(Placed(), workflow_id="w", correlation_id="c")
        await bus.publish(Event(data=Placed()))
        await bus.publish(Event(data=Placed(), source_agent="own", workflow_id="old", correlation_id="old"))
        await bus.publish(
            Event(data=Placed(), source_agent="own", workflow_id="old", correlation_id="old"),
            source_agent="given",
            workflow_id="new",
            correlation_id="newer",
        )
        entries = await transport.inner.streams.range(STREAM)
    seen = [msgspec.json.decode(entry.fields[1]) for entry in entries]
    assert [(e.get("source_agent"), e.get("workflow_id"), e.get("correlation_id")) for e in seen] == [
        ("coordinator", "w", "c"),
        ("coordinator", None, None),
        ("own", "old", "old"),
        ("given", "new", "newer"),
    ]


async def test_a_stream_is_listed_and_its_birth_announced_once() -> None:
    """The directory has it before its first entry; only its first publisher announces it."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        await bus.publish(Placed())
        await bus.publish(Placed())
        assert [name for name, _ in await transport.records.members(STREAM_DIRECTORY)] == [STREAM]
        (births,) = await transport.streams.scan("hyperbus:*")
        (entry,) = await transport.streams.range(births)
        assert STREAM.encode() in entry.fields
    assert [name for name, _ in transport.records.calls].count("add_members") == 1


async def test_a_directory_that_is_refused_does_not_hold_back_events() -> None:
    """A server without memory may still take the event; the scan finds the stream."""
    transport = FaultyTransport()

    async def full(*_: Any) -> Any:
        raise OutOfMemoryError("full")

    transport.records.overrides["add_members"] = full
    async with a_bus(transport) as bus:
        await bus.publish(Placed(number=7))
        assert await numbers(transport) == [7]


async def test_what_was_published_is_announced_by_type() -> None:
    """One signal a round trip, with the count of each event type."""
    transport, recorder = FaultyTransport(), Recorder()
    async with a_bus(transport, listeners=[recorder]) as bus:
        await bus.publish_many([Placed(), Placed(), Event(type="publisher_test.other", data={})])
    (published,) = recorder.of(Published)
    assert published.counts == {"publisher_test.placed": 2, "publisher_test.other": 1}
    assert published.seconds >= 0


async def test_msgpack_is_written_under_its_own_field_name() -> None:
    """The setting `codec` chooses how events are written; an unknown one is refused at the start."""
    transport = FaultyTransport()
    async with a_bus(transport, codec="msgpack") as bus:
        await bus.publish(Placed())
        (entry,) = await transport.streams.range(STREAM)
        assert entry.fields[0] == b"msgpack"
    with pytest.raises(InvalidSettingError, match="json"):
        async with a_bus(FaultyTransport(), codec="xml"):
            pass


async def test_a_deadline_in_the_buffer_is_kept_beside_later_ones() -> None:
    """A short timeout that comes after a long one is over at its own time."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        gate = transport.streams.overrides["append"] = Gate()
        first = asyncio.create_task(bus.publish(Placed(number=1), timeout=60.0))
        await gate.reached.wait()
        second = asyncio.create_task(bus.publish(Placed(number=2), timeout=0.02))
        await eventually(second.done)
        with pytest.raises(BusUnavailable, match="not sent in time"):
            await second
        gate.open.set()
        await first
        assert await numbers(transport) == [1]
