"""Publishing with `once=True`, on memory: what is sent again, until when, and in what order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from hyperbus import BusUnavailable, Event, PublishFailed, PublishUncertain
from hyperbus.errors import EncodeError, PublishRefusedError
from hyperbus.publisher import BATCH
from tests.faults import FaultyTransport
from tests.unit.publisher.publishing import STREAM, Gate, Placed, a_bus, appended, numbers


class Breaks:
    """An `append_once` that stores and whose connection then breaks, `times` times; it keeps what it was given."""

    def __init__(self, times: int, *, stores: int | None = None) -> None:
        self.left = times
        self.stores = stores
        self.batches: list[list[str]] = []

    async def __call__(self, append: Any, entries: Sequence[Any], **named: Any) -> Any:
        self.batches.append([event_id for _, event_id in entries])
        if self.left <= 0:
            return await append(entries, **named)
        self.left -= 1
        stored = entries[: self.stores]
        answered = len(stored) // 2
        results = await append(stored, **named)
        broken = PublishUncertain("the connection broke")
        return results[:answered] + [broken] * (len(entries) - answered)


async def test_repeats_of_an_event_add_nothing_and_name_the_entry_that_is_there() -> None:
    """However it is published: alone, among many, twice in one batch, or at once from two tasks."""
    transport, event = FaultyTransport(), Event(data=Placed(number=1))
    async with a_bus(transport) as bus:
        entry_id = await bus.publish(event, once=True)
        assert await bus.publish(event, once=True) == entry_id
        assert await bus.publish_many([event, event], once=True) == [entry_id, entry_id]
        assert await asyncio.gather(*(bus.publish(event, once=True) for _ in range(3))) == [entry_id] * 3
        assert await bus.publish(Placed(number=2), once=True) != entry_id
        assert await numbers(transport) == [1, 2]


async def test_without_once_a_repeat_is_a_second_entry() -> None:
    """Nobody pays for what was not asked for."""
    transport, event = FaultyTransport(), Event(data=Placed(number=1))
    async with a_bus(transport) as bus:
        await bus.publish(event)
        await bus.publish(event)
        assert await numbers(transport) == [1, 1]
    assert transport.streams.called("append_once") == []


async def test_what_may_be_stored_is_sent_again_until_it_is_known() -> None:
    """The caller sees entry ids and no error; every event is there once, in order."""
    transport = FaultyTransport()
    breaks = transport.streams.overrides["append_once"] = Breaks(3, stores=7)
    async with a_bus(transport) as bus:
        ids = await asyncio.gather(*(bus.publish(Placed(number=n), once=True) for n in range(20)))
        assert await numbers(transport) == list(range(20))
    assert len(set(ids)) == 20
    assert len(breaks.batches) == 4
    assert [len(batch) for batch in breaks.batches] == [20, 17, 14, 11], "what was answered is not sent again"


async def test_publish_many_sends_again_only_what_is_not_known() -> None:
    """Order and ids are those of the events, whatever broke, and one that cannot be encoded keeps its place."""
    transport = FaultyTransport()
    breaks = transport.streams.overrides["append_once"] = Breaks(2, stores=6)
    events: list[Any] = [Placed(number=n) for n in range(BATCH + 10)]
    async with a_bus(transport) as bus:
        ids = await bus.publish_many(events, once=True)
        assert await numbers(transport) == list(range(BATCH + 10))
        assert ids == [entry.id.decode() for entry in await transport.inner.streams.range(STREAM, count=1000)]
        assert [len(batch) for batch in breaks.batches] == [BATCH, BATCH - 3, BATCH - 6, 10]
        breaks.left = 1
        with pytest.raises(PublishFailed, match="1 of 2 events stored") as caught:
            await bus.publish_many([Event(type="publisher_test.placed", data=object()), Placed(number=-1)], once=True)
    assert [type(result) for result in caught.value.results] == [EncodeError, str]


async def test_at_its_timeout_an_event_that_was_sent_once_stays_uncertain() -> None:
    """Also when every later try was not even sent: "not sent" would be a lie."""
    transport, tried, breaks = FaultyTransport(), set[str](), True

    async def breaks_then_away(append: Any, entries: Any, **named: Any) -> Any:
        ids = {event_id for _, event_id in entries}  # a repeat may be under way still when its publish is over
        await append(entries, **named)
        if breaks and not ids <= tried:
            tried.update(ids)
            return [PublishUncertain("the connection broke") for _ in entries]
        return [BusUnavailable("nobody is there") for _ in entries]

    async with a_bus(transport) as bus:
        transport.streams.overrides["append_once"] = breaks_then_away
        with pytest.raises(PublishUncertain, match="once=True within 600 s"):
            await bus.publish(Placed(number=1), once=True, timeout=0.2)
        with pytest.raises(PublishFailed, match="1 uncertain, 0 not stored"):
            await bus.publish_many([Placed(number=2)], once=True, timeout=0.2)
        breaks = False
        with pytest.raises(BusUnavailable):
            await bus.publish(Placed(number=3), once=True, timeout=0.1)


async def test_nothing_is_sent_again_when_the_window_is_over() -> None:
    """A repeat after the window would be a second entry: the caller hears "uncertain" before that."""
    transport = FaultyTransport()
    breaks = transport.streams.overrides["append_once"] = Breaks(10**6)
    loop = asyncio.get_running_loop()
    async with a_bus(transport, once_window=0.2) as bus:
        started = loop.time()
        with pytest.raises(PublishUncertain):
            await bus.publish(Placed(number=1), once=True, timeout=2.0)
        with pytest.raises(PublishFailed, match="1 uncertain"):
            await bus.publish_many([Placed(number=2)], once=True, timeout=2.0)
        assert loop.time() - started < 1.0
        breaks.left = 0
        await bus.publish(Placed(number=3), once=True)


async def test_a_refusal_is_not_sent_again() -> None:
    """The server said no, and not that it does not know."""
    transport = FaultyTransport()
    transport.inner.set_value("events:publisher_test.refused", b"x")
    async with a_bus(transport) as bus:
        with pytest.raises(PublishRefusedError):
            await bus.publish(Event(type="publisher_test.refused", data={}), once=True)
    assert len(transport.streams.called("append_once")) == 1


async def test_plain_and_once_publishes_do_not_wait_for_each_other() -> None:
    """A round trip of one kind that hangs holds up its own kind only."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        gate = Gate()

        async def gated(append: Any, entries: Any, **named: Any) -> Any:
            gate.reached.set()
            await gate.open.wait()
            return await append(entries, **named)

        transport.streams.overrides["append_once"] = gated
        once = asyncio.create_task(bus.publish(Placed(number=1), once=True))
        await gate.reached.wait()
        await bus.publish(Placed(number=2))
        transport.streams.overrides["append"] = plain_gate = Gate()
        plain = asyncio.create_task(bus.publish(Placed(number=3)))
        await plain_gate.reached.wait()
        gate.open.set()
        await once
        await bus.publish(Placed(number=4), once=True)
        plain_gate.open.set()
        await plain
        assert await numbers(transport) == [2, 1, 4, 3]
    assert [len(entries) for entries in appended(transport)] == [1, 1]


async def test_what_waits_is_bounded_over_both_kinds() -> None:
    """Events that wait to be sent again fill the same buffer."""
    transport = FaultyTransport()
    breaks = transport.streams.overrides["append_once"] = Breaks(10**6, stores=0)
    async with a_bus(transport, publish_buffer=2) as bus:
        held = [asyncio.create_task(bus.publish(Placed(number=n), once=True)) for n in range(2)]
        await asyncio.sleep(0)
        for once in (True, False):
            with pytest.raises(BusUnavailable, match="no room"):
                await bus.publish(Placed(number=9), timeout=0.02, once=once)
        waiting = [asyncio.create_task(bus.publish(Placed(number=n), once=n == 2)) for n in (2, 3)]
        breaks.left = 0
        await asyncio.gather(*held, *waiting)
        assert sorted(await numbers(transport)) == [0, 1, 2, 3]


async def test_closing_sends_again_what_is_not_known() -> None:
    """A bus that closes keeps to the promise until the timeout."""
    transport = FaultyTransport()
    transport.streams.overrides["append_once"] = Breaks(2)
    async with a_bus(transport) as bus:
        publishing = [asyncio.create_task(bus.publish(Placed(number=n), once=True)) for n in range(3)]
        await asyncio.sleep(0)
    assert all(isinstance(task.result(), str) for task in publishing)
    await transport.open()
    assert await numbers(transport) == [0, 1, 2]
    await transport.close()
