"""Found by use: a bus that is used from another event loop than its own, and handlers that are plain functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hyperbus import Backoff, Bus, Delivery, Event, EventData, HyperbusError, consumer
from hyperbus.settings import Settings
from hyperbus.signals import EntryDeadLettered
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique


class Moved(EventData, type="found.moved"):
    n: int


async def leave_at_once(bus: Bus) -> None:
    @consumer(group="g", types=["found.none"])
    async def none(event: Event) -> None: ...

    async with bus.running(none):
        pass


async def first_of(loop: Any) -> None:
    async for _ in loop:
        break


ELSEWHERE: dict[str, Callable[[Bus], Any]] = {
    "publish": lambda bus: bus.publish(Moved(n=1)),
    "publish with once": lambda bus: bus.publish(Moved(n=1), once=True),
    "publish_many": lambda bus: bus.publish_many([Moved(n=1), Moved(n=2)]),
    "consume": lambda bus: first_of(bus.consume("found.moved", group="other")),
    "read": lambda bus: first_of(bus.read("found.moved")),
    "running": leave_at_once,
    "close": lambda bus: bus.__aexit__(None, None, None),
    "open": lambda bus: bus.__aenter__(),
}


@pytest.mark.parametrize("what", ELSEWHERE)
async def test_another_event_loop_is_refused_before_anything_is_done(what: str) -> None:
    """In a thread with an event loop of its own: one line that says what to do, nothing stored, and the bus goes on."""

    async def tries(bus: Bus) -> None:
        async with asyncio.timeout(10):
            await ELSEWHERE[what](bus)

    async with Running() as here:
        with pytest.raises(HyperbusError, match="event loop") as refused:
            await asyncio.to_thread(lambda: asyncio.run(tries(here.bus)))
        assert "\n" not in str(refused.value)
        assert await here.transport.streams.info(["events:found.moved"]) == [None]
        await asyncio.wait_for(here.bus.publish(Moved(n=3)), 10)
        (info,) = await here.transport.streams.info(["events:found.moved"])
        assert info is not None
        assert info.length == 1


def test_the_next_event_loop_of_the_same_thread_is_another_one() -> None:
    """A bus that outlived its `asyncio.run` is refused in the next one."""
    bus = Bus("memory://", settings=Settings())

    async def opens() -> None:
        await bus.__aenter__()

    async def publishes() -> None:
        await bus.publish(Moved(n=1))

    asyncio.run(opens())
    with pytest.raises(HyperbusError, match="event loop"):
        asyncio.run(publishes())


async def test_a_plain_handler_that_runs_its_own_event_loop_stores_no_copies() -> None:
    """Its tries fail, each before anything was sent."""
    kind, tries = unique(), []

    @consumer(group=unique(), types=[kind], retry=Backoff(initial=0.001, tries=3))
    def plain(event: Event, delivery: Delivery) -> None:
        tries.append(delivery.tries)
        asyncio.run(delivery.publish(Moved(n=1)))

    async with Running() as here, here.bus.running(plain):
        await here.publish(kind, 1)
        dead = await here.recorder.wait_for_one(EntryDeadLettered, within=30)
        assert "publish_blocking" in dead.message
        assert tries == [1, 2, 3]
        assert await here.transport.streams.info(["events:found.moved"]) == [None]


async def test_a_plain_handler_publishes_from_its_thread() -> None:
    """What it publishes is caused by its event; in a batch too."""
    kind, ids = unique(), []

    @consumer(group=unique(), types=[kind])
    def one(event: Event, delivery: Delivery) -> None:
        ids.append(delivery.publish_blocking(Moved(n=event.data["n"])))

    @consumer(group=unique(), types=[kind])
    def many(events: list[Event], deliveries: list[Delivery]) -> None:
        ids.extend(each.publish_blocking(Moved(n=each.event.data["n"])) for each in deliveries)

    async with Running() as here, here.bus.running(one, many):
        cause = Event(type=kind, data={"n": 1}, workflow_id="w")
        await here.bus.publish(cause)
        await eventually(lambda: len(ids) == 2)
        found: list[Event] = []
        async for event in here.bus.read(Moved):
            found.append(event)
            if len(found) == 2:
                break
    assert {event.causation_id for event in found} == {cause.id}
    assert {event.workflow_id for event in found} == {"w"}


async def test_blocking_where_the_event_loop_runs_is_refused() -> None:
    """It would wait for itself; nothing was sent, and the line says what to write."""
    kind, refused = unique(), []

    @consumer(group=unique(), types=[kind])
    async def on_the_loop(event: Event, delivery: Delivery) -> None:
        try:
            delivery.publish_blocking(Moved(n=1))
        except HyperbusError as error:
            refused.append(str(error))

    async with Running() as here, here.bus.running(on_the_loop):
        await here.publish(kind, 1)
        await eventually(lambda: refused)
        assert await here.transport.streams.info(["events:found.moved"]) == [None]
    assert "await" in refused[0]


async def test_a_thread_hears_of_a_bus_that_closed_and_does_not_wait_for_ever() -> None:
    """A thread that outlives its handler's bus is refused."""
    kind, kept = unique(), []

    @consumer(group=unique(), types=[kind])
    def plain(event: Event, delivery: Delivery) -> None:
        kept.append(delivery)

    async with Running() as here, here.bus.running(plain):
        await here.publish(kind, 1)
        await eventually(lambda: kept)
    with pytest.raises(HyperbusError):
        await asyncio.to_thread(kept[0].publish_blocking, Moved(n=1))


async def test_a_bus_that_is_open_is_not_opened_again() -> None:
    """It would lose what it has opened; left, it may be opened again."""
    bus = Bus("memory://", settings=Settings())
    async with bus:
        with pytest.raises(HyperbusError, match="open already"):
            await bus.__aenter__()
        await bus.publish(Moved(n=1))
    await bus.__aexit__(None, None, None)
    async with bus:
        await bus.publish(Moved(n=1))
