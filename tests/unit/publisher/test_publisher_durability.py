"""Publishing with `durability=`, on a transport that says what a test wants: checks, waits, shortfalls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbus import BusUnavailable, Event, PublishFailed, PublishUncertain, SyncPublisher
from hyperbus.errors import DurabilityUnsupported, EncodeError, InvalidSettingError, NotDurable, OutOfMemoryError
from hyperbus.settings import Settings
from hyperbus.signals import Published, PublishErred
from hyperbus.transport import Durability
from tests.faults import FaultyTransport
from tests.recorder import Recorder, eventually
from tests.unit.publisher.publishing import Placed, a_bus, numbers


class Durable(FaultyTransport):
    """A memory transport that takes every level, stores, and then says what `answer` makes of the entry ids."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[Durability] = []
        self.answer: Any = lambda results: results
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.streams.overrides |= {"append": self._append, "append_once": self._append, "check_durability": supported}

    async def _append(self, append: Any, entries: Any, *, durability: Durability | None = None, **named: Any) -> Any:
        if durability is None:
            return await append(entries, **named)
        self.levels.append(durability)
        self.reached.set()
        await self.gate.wait()
        return self.answer(await append(entries, **named))


async def supported(_check: Any, _durability: Durability) -> None:
    """Every level is there."""


def short(results: list[Any]) -> list[Any]:
    return [NotDurable(result, "only 0 of 1 replicas had it") for result in results]


@pytest.mark.parametrize(
    "text", ["", "replica", "replica:", "replica:0", "replica:-1", "replica:1000", "replica:1 ", "disk:1", "DISK", "²"]
)
async def test_a_level_that_there_is_not_is_refused(text: str) -> None:
    """By `publish` and `publish_many`, before anything is sent."""
    transport = Durable()
    async with a_bus(transport) as bus:
        with pytest.raises(InvalidSettingError, match=r"replica:N"):
            await bus.publish(Placed(), durability=text)
        with pytest.raises(InvalidSettingError, match=r"replica:N"):
            await bus.publish_many([Placed()], durability=text)
    assert transport.streams.calls == []


@pytest.mark.parametrize(("text", "replicas", "disk"), [("disk", 0, True), ("replica:2", 2, False)])
@pytest.mark.parametrize("once", [True, False])
async def test_the_level_reaches_the_transport(text: str, replicas: int, *, disk: bool, once: bool) -> None:
    """Also together with `once`; it leaves some of the publish's time for the answer."""
    transport = Durable()
    async with a_bus(transport, publish_timeout=1.0, durability_timeout=5.0) as bus:
        event = Event(data=Placed(number=1))
        entry_id = await bus.publish(event, durability=text, once=once)
        ids = await bus.publish_many([event], durability=text, once=once)
        assert (ids == [entry_id]) is once
    assert [(level.replicas, level.disk) for level in transport.levels] == [(replicas, disk)] * 2
    assert all(0.5 < level.timeout <= 0.8 for level in transport.levels)


async def test_waits_are_as_long_as_the_setting_says() -> None:
    """When the publish has that much time."""
    transport = Durable()
    async with a_bus(transport, publish_timeout=10.0, durability_timeout=1.5) as bus:
        await bus.publish(Placed(), durability="disk")
    assert transport.levels == [Durability(disk=True, timeout=1.5)]


async def test_what_a_place_cannot_do_is_refused_before_anything_is_sent() -> None:
    """Memory has neither replicas nor a disk: not even the stream is made known."""
    transport = FaultyTransport()
    async with a_bus(transport) as bus:
        with pytest.raises(DurabilityUnsupported, match="memory"):
            await bus.publish(Placed(), durability="replica:1")
        with pytest.raises(DurabilityUnsupported):
            await bus.publish_many([Placed(), Placed()], durability="disk", once=True)
        with pytest.raises(PublishFailed) as caught:
            await bus.publish_many([Placed(), Event(type="publisher_test.placed", data=object())], durability="disk")
        assert [type(result) for result in caught.value.results] == [DurabilityUnsupported, EncodeError]
        assert await numbers(transport) == []
    assert transport.records.calls == []
    assert transport.streams.called("append") == []


async def test_a_server_is_asked_once_for_each_level_and_again_after_it_was_lost() -> None:
    """Behind a new connection there may be another server."""
    transport = Durable()
    async with a_bus(transport) as bus:
        for level in ("disk", "disk", "replica:1", "disk"):
            await bus.publish(Placed(), durability=level)
        await bus.publish_many([Placed()], durability="disk")
        assert len(transport.streams.called("check_durability")) == 2
        transport.answer = lambda results: [PublishUncertain("the connection broke") for _ in results]
        with pytest.raises(PublishUncertain):
            await bus.publish(Placed(), durability="disk")
        transport.answer = lambda results: results
        await bus.publish(Placed(), durability="disk")
        assert len(transport.streams.called("check_durability")) == 3


async def test_a_server_that_cannot_be_asked_yet_is_asked_again() -> None:
    """Until the timeout; then the event was not sent."""
    transport = Durable()
    left = [2]

    async def away_at_first(*_: Any) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise BusUnavailable("nobody is there")

    transport.streams.overrides["check_durability"] = away_at_first
    async with a_bus(transport) as bus:
        await bus.publish(Placed(number=1), durability="disk")
        left[0] = 10**6
        with pytest.raises(BusUnavailable, match="nobody is there"):
            await bus.publish(Placed(), durability="replica:1", timeout=0.1)
        with pytest.raises(BusUnavailable, match="none of 1 events"):
            await bus.publish_many([Placed()], durability="replica:1", timeout=0.1)
        assert await numbers(transport) == [1]


async def test_a_server_that_refuses_the_question_refuses_the_event() -> None:
    """Whatever its error is, the caller gets it, and the next one is not held up."""
    transport = Durable()

    async def refuses(*_: Any) -> None:
        raise OutOfMemoryError("no")

    transport.streams.overrides["check_durability"] = refuses
    async with a_bus(transport) as bus:
        with pytest.raises(OutOfMemoryError):
            await bus.publish(Placed(), durability="disk")
        transport.streams.overrides["check_durability"] = supported
        await bus.publish(Placed(), durability="disk")


@pytest.mark.parametrize("once", [True, False])
async def test_a_level_that_is_not_reached_is_an_error_that_names_the_entry(*, once: bool) -> None:
    """The event is stored: it is not sent again, local handlers see it, and it is counted as stored and as an error."""
    transport, recorder, seen = Durable(), Recorder(), []
    transport.answer = short
    async with a_bus(transport, listeners=[recorder]) as bus:
        bus.on_publish("*", lambda event: seen.append(event.data.number))
        with pytest.raises(NotDurable) as one:
            await bus.publish(Placed(number=1), durability="replica:1", once=once)
        with pytest.raises(PublishFailed, match="2 of 2 events stored") as many:
            await bus.publish_many([Placed(number=n) for n in (2, 3)], durability="replica:1", once=once)
        results: list[Any] = [one.value, *many.value.results]
        stored = await transport.inner.streams.range("events:publisher_test.placed", count=10)
        assert [result.entry_id for result in results] == [entry.id.decode() for entry in stored]
    assert seen == [1, 2, 3]
    assert sum(sum(signal.counts.values()) for signal in recorder.of(Published)) == 3
    assert recorder.of(PublishErred) == [PublishErred(1, "NotDurable"), PublishErred(2, "NotDurable")]


async def test_durable_batches_go_one_by_one_and_who_queues_is_not_sent() -> None:
    """Another level, or a `publish_many`, waits for its turn; at its timeout it can say that nothing was sent."""
    transport = Durable()
    async with a_bus(transport) as bus:
        transport.gate.clear()
        first = asyncio.create_task(bus.publish(Placed(number=1), durability="disk"))
        await transport.reached.wait()
        with pytest.raises(BusUnavailable, match="not sent in time"):
            await bus.publish(Placed(number=2), durability="replica:1", timeout=0.05)
        with pytest.raises(BusUnavailable, match="not sent in time"):
            await bus.publish_many([Placed(number=3)], durability="disk", timeout=0.05)
        await bus.publish(Placed(number=4))
        transport.gate.set()
        await first
        await bus.publish(Placed(number=5), durability="replica:1")
        assert await numbers(transport) == [4, 1, 5]


async def test_nothing_is_left_running_of_a_level_that_is_not_used_any_more() -> None:
    """A thousand timeouts are not a thousand tasks."""
    transport = Durable()

    def tasks() -> int:
        return sum(task.get_name() == "hyperbus publisher" for task in asyncio.all_tasks())

    async with a_bus(transport) as bus:
        await asyncio.gather(*(bus.publish(Placed(), durability="disk", timeout=1 + n / 100) for n in range(50)))
        await eventually(lambda: tasks() == 1)
        await bus.publish(Placed(), durability="disk", timeout=1)
        assert len(await numbers(transport)) == 51


def test_code_without_an_event_loop_can_ask_for_it_too() -> None:
    """`SyncPublisher` passes `once` and `durability` on."""
    transport = FaultyTransport()
    event = Event(data=Placed(number=1))
    with SyncPublisher(transport=transport, settings=Settings()) as publisher:
        first = publisher.publish(event, once=True)
        assert publisher.publish_many([event], once=True) == [first]
        with pytest.raises(DurabilityUnsupported):
            publisher.publish(event, durability="disk")
        with pytest.raises(DurabilityUnsupported):
            publisher.publish_many([event], durability="disk")
