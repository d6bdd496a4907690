"""Workers live for as long as their process beats."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from hyperbus import BusUnavailable, Event, consumer
from hyperbus.clock import SystemClock
from hyperbus.runtime.coordination.heartbeat import Heartbeat
from hyperbus.signals import Announcer, WorkerChanged
from hyperbus.transport import record_names
from tests.faults import FaultyTransport
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique


async def test_a_heartbeat_goes_on_while_the_event_loop_is_blocked() -> None:
    """It is sent by a thread of its own; a record that has gone is stored again."""
    kind = unique()
    async with Running(heartbeat_ttl=0.2) as here:
        records = here.memory.separate().records
        alive: list[bool] = []

        def look() -> None:
            async def ask() -> None:
                other = here.memory.separate()
                await other.open()
                (signal, *_) = here.recorder.of(WorkerChanged)
                (value,) = await other.records.get([record_names.heartbeat(signal.consumer)])
                alive.append(value is not None)

            asyncio.run(ask())

        @consumer(group=unique(), types=[kind])
        async def blocks(event: Event) -> None:
            await asyncio.sleep(0)
            threading.Event().wait(0.5)
            look_thread = threading.Thread(target=look)
            look_thread.start()
            look_thread.join()

        async with here.bus.running(blocks):
            await here.publish(kind, 1)
            await eventually(lambda: alive)
            (name,) = {signal.consumer for signal in here.recorder.of(WorkerChanged)}
            await here.transport.records.delete([record_names.heartbeat(name)])
            async with asyncio.timeout(2):
                while (await here.transport.records.get([record_names.heartbeat(name)])) == [None]:
                    await asyncio.sleep(0.01)
        assert alive == [True]
        assert records is not here.transport.records


async def test_heartbeats_survive_an_outage() -> None:
    """A beat that fails is made up for by the next one, and one worker's end leaves the other's record alone."""
    transport = FaultyTransport()
    await transport.open()
    opened: list[bool] = []

    def separate() -> Any:
        other = FaultyTransport(transport.inner.separate())
        really_open = other.open

        async def fails_once() -> None:
            opened.append(True)
            if len(opened) == 1:
                raise BusUnavailable("away")
            await really_open()

        other.open = fails_once  # type: ignore[method-assign]
        return other

    transport.separate = separate  # type: ignore[method-assign]
    heartbeat = Heartbeat(transport, Announcer(), SystemClock(), 0.1)
    await heartbeat.stop()
    heartbeat = Heartbeat(transport, Announcer(), SystemClock(), 0.1)
    await heartbeat.add("one", b"about")
    await heartbeat.add("two", b"about")
    await eventually(lambda: len(opened) == 2)
    await heartbeat.remove("one")
    for _ in range(20):
        await asyncio.sleep(0.01)
        one, two = await transport.records.get([record_names.heartbeat("one"), record_names.heartbeat("two")])
        assert one is None
    assert two == b"about"
    await heartbeat.remove("two")
    await asyncio.sleep(0.05)
    await heartbeat.stop()
    await transport.close()


async def test_subscribers_are_called_at_each_beat_until_they_unsubscribe() -> None:
    """In the thread, on its own connection; one that finds the server away is called at the next beat again."""
    transport = FaultyTransport()
    await transport.open()
    heartbeat = Heartbeat(transport, Announcer(), SystemClock(), 0.04)
    called: list[tuple[str, bool]] = []

    async def fails(own: Any) -> None:
        called.append(("fails", own is transport))
        if len(called) == 1:
            raise BusUnavailable("away")

    async def works(own: Any) -> None:
        called.append(("works", threading.current_thread() is threading.main_thread()))

    heartbeat.subscribe(fails)
    heartbeat.subscribe(works)
    await heartbeat.add("one", b"about")
    await eventually(lambda: called.count(("works", False)) >= 2)
    assert set(called) == {("fails", False), ("works", False)}
    heartbeat.unsubscribe(fails)
    await eventually(lambda: called[-3:] == [("works", False)] * 3)
    await heartbeat.stop()
    await transport.close()


@pytest.mark.parametrize("odd", ["one", "two", "three"])
async def test_the_record_of_any_of_several_workers_is_stored_again(odd: str) -> None:
    """Whichever the server has lost, while it has those of the others."""
    transport = FaultyTransport()
    await transport.open()
    heartbeat = Heartbeat(transport, Announcer(), SystemClock(), 0.1)
    for name in ("one", "two", "three"):
        await heartbeat.add(name, b"about")
    await transport.records.delete([record_names.heartbeat(odd)])
    async with asyncio.timeout(10):
        while await transport.records.get([record_names.heartbeat(odd)]) == [None]:
            await asyncio.sleep(0.01)
    await heartbeat.stop()
    await transport.close()


async def test_a_worker_that_leaves_while_its_record_is_renewed_is_not_stored_again() -> None:
    """The server found none, as it had just been deleted: nobody is to wait for that worker."""
    transport = FaultyTransport()
    await transport.open()
    asked, removed, beats = threading.Event(), threading.Event(), list[int]()

    async def late(renew: Any, names: Any, **options: Any) -> Any:
        beats.append(len(names))
        if len(names) == 2:
            asked.set()
            removed.wait(10)
        return await renew(names, **options)

    def separate() -> Any:
        other = FaultyTransport(transport.inner.separate())
        other.records.overrides["renew"] = late
        return other

    transport.separate = separate  # type: ignore[method-assign]
    heartbeat = Heartbeat(transport, Announcer(), SystemClock(), 0.1)
    await heartbeat.add("stays", b"about")
    await heartbeat.add("leaves", b"about")
    assert await asyncio.to_thread(asked.wait, 10)
    await heartbeat.remove("leaves")
    removed.set()
    await eventually(lambda: 1 in beats)
    assert await transport.records.get([record_names.heartbeat("leaves")]) == [None]
    await heartbeat.stop()
    await transport.close()
