"""`order_by`: one key in order, many keys at once, through retries and over several workers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from itertools import count
from typing import Any

import pytest

from hyperbus import Backoff, BusUnavailable, Event, Retry, consumer
from hyperbus.event.codec import codecs
from hyperbus.runtime.in_flight.decoder import EventDecoder
from hyperbus.runtime.in_flight.key_order import KeyOrder
from hyperbus.runtime.in_flight.received import Received
from hyperbus.runtime.recovery import claims, reclaimer
from hyperbus.signals import EntryDeadLettered
from hyperbus.transport import record_names
from tests.faults import FaultyTransport
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique


def received(number: int) -> Received:
    return Received("s", "t", b"%d-0" % number, [b"data", b"{}"], 2, 0.0)


def test_of_a_key_one_delivery_comes_first() -> None:
    """The first begins, others wait, and each makes way for the next; another key is not held up."""
    order = KeyOrder(EventDecoder(codecs(), {}), lambda event: event.workflow_id)
    first, second, third, other = map(received, range(4))
    assert order.begin("a", first)
    assert not order.begin("a", second)
    assert not order.begin("a", third)
    assert order.begin("b", other)
    assert order.begin("a", first)  # a retry of the one that comes first
    assert order.end("a") is second
    assert order.begin("a", second)
    assert not order.begin("a", first)
    assert order.end("a") is third
    assert order.close() == [first]
    assert order.end("a") is None
    assert order.begin("a", first)


async def test_one_key_in_order_and_many_at_once() -> None:
    """Every key sees its events in order though 16 handlers run and some fail; keys do not wait for each other."""
    kind = unique()
    seen: dict[str, list[int]] = defaultdict(list)
    failed: set[tuple[str, int]] = set()
    together = most = 0

    @consumer(group=unique(), types=[kind], concurrency=16, order_by="workflow_id", retry=Backoff(initial=0.02))
    async def handler(event: Event) -> None:
        nonlocal together, most
        together += 1
        most = max(most, together)
        await asyncio.sleep(0.001)
        together -= 1
        key, number = event.workflow_id, event.data["n"]
        if number % 7 == 3 and (key, number) not in failed:
            failed.add((key, number))
            raise Retry
        seen[key].append(number)

    async with Running() as here:
        for number in range(20):
            for key in range(10):
                await here.bus.publish(Event(type=kind, data={"n": number}, workflow_id=f"wf-{key}"))
        async with here.bus.running(handler):
            await eventually(lambda: sum(map(len, seen.values())) >= 200, within=20)
    assert all(numbers == list(range(20)) for numbers in seen.values())
    assert most > 4
    assert len(failed) == 30


async def test_two_workers_keep_the_order_of_a_key() -> None:
    """One of them reads at a time; when it leaves, the other goes on where it stopped."""
    kind, group = unique(), unique()
    seen: dict[str, list[int]] = defaultdict(list)

    def worker() -> object:
        @consumer(group=group, types=[kind], concurrency=8, order_by="workflow_id")
        async def handler(event: Event) -> None:
            await asyncio.sleep(0.001)
            seen[str(event.workflow_id)].append(event.data["n"])

        return handler

    async def publish(here: Running, numbers: range) -> None:
        for number in numbers:
            for key in range(4):
                await here.bus.publish(Event(type=kind, data={"n": number}, workflow_id=f"wf-{key}"))

    async with Running(heartbeat_ttl=0.3) as here, here.bus.running(worker()):
        async with here.bus.running(worker()):
            await publish(here, range(30))
        await publish(here, range(30, 60))
        await eventually(lambda: sum(map(len, seen.values())) >= 240, within=20)
    assert all(list(dict.fromkeys(numbers)) == list(range(60)) for numbers in seen.values())


async def test_a_handler_that_takes_too_long_has_failed() -> None:
    """The timeout counts as a failure like any other, and says what it was."""
    kind = unique()

    @consumer(group=unique(), types=[kind], timeout=0.05, retry=Backoff(initial=0.01, tries=2))
    async def handler(event: Event) -> None:
        await asyncio.Event().wait()

    async with Running() as here:
        await here.publish(kind, 1)
        async with here.bus.running(handler):
            buried = await here.recorder.wait_for_one(EntryDeadLettered, within=10)
    assert buried.message == "the handler took longer than its timeout of 0.05 s"


async def test_what_several_dead_workers_left_is_claimed_in_the_order_of_the_stream() -> None:
    """Not owner by owner: a key's events lie with both of them."""
    kind, group, seen = unique(), unique(), []

    @consumer(group=group, types=[kind], concurrency=4, order_by="workflow_id")
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async with Running(heartbeat_ttl=0.2) as here:
        for number in range(12):
            await here.bus.publish(Event(type=kind, data={"n": number}, workflow_id="one"))
        for number in range(6):
            await here.deliver_to_the_dead(kind, group, count=2, consumer="ab"[number % 2])
        async with here.bus.running(handler):
            await eventually(lambda: len(seen) >= 12, within=10)
    assert seen == list(range(12))


def collects(seen: list[int], kind: str, group: str) -> object:
    @consumer(group=group, types=[kind], order_by="workflow_id")
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    return handler


def lose_an_answer(here: Running, call: int) -> None:
    """Let the server do what one of the claims asks for, and nobody hear of it."""
    calls = count()

    async def claim(method: Any, *arguments: Any, **options: Any) -> Any:
        result = await method(*arguments, **options)
        if next(calls) == call:
            raise BusUnavailable("the answer was lost")
        return result

    here.transport.streams.overrides["claim"] = claim


async def publish_one_key(here: Running, kind: str, numbers: range) -> None:
    for number in numbers:
        await here.bus.publish(Event(type=kind, data={"n": number}, workflow_id="one"))


@pytest.mark.parametrize("left", [2, 6], ids=["rest unread", "rest left by the dead"])
async def test_what_was_claimed_unheard_comes_before_what_follows_it(monkeypatch: pytest.MonkeyPatch, left: int):
    """Before anything newer of the stream is read, and before anything newer that the dead one left is claimed."""
    monkeypatch.setattr(claims, "PAGE", 2)
    monkeypatch.setattr(reclaimer, "SWEEP", 0.05)
    kind, group, seen = unique(), unique(), []
    async with Running(heartbeat_ttl=0.2) as here:
        await publish_one_key(here, kind, range(6))
        await here.deliver_to_the_dead(kind, group, count=left)
        lose_an_answer(here, 0)
        sweeps = here.transport.streams

        async def pending(method: Any, *arguments: Any, **options: Any) -> Any:
            if "consumer" in options:  # it is not a sweep that asks: sweeps go on meanwhile
                before = len(sweeps.called("pending_summaries"))
                await eventually(lambda: len(sweeps.called("pending_summaries")) >= before + 10)
            return await method(*arguments, **options)

        sweeps.overrides["pending"] = pending
        async with here.bus.running(collects(seen, kind, group)):
            await eventually(lambda: len(seen) >= 6, within=10)
    assert seen == list(range(6))


async def test_what_was_claimed_unheard_is_found_though_another_worker_may_read() -> None:
    """That one waits until nobody else has anything pending, so waiting for its turn would be waiting for ever."""
    kind, group, seen = unique(), unique(), []
    transport = FaultyTransport()
    there_transport = FaultyTransport(transport.inner.separate())
    async with Running(transport, heartbeat_ttl=0.2) as here, Running(there_transport, heartbeat_ttl=0.2) as there:
        await publish_one_key(here, kind, range(4))
        await here.deliver_to_the_dead(kind, group, count=2)
        lost = asyncio.Event()

        async def claim(method: Any, *arguments: Any, **options: Any) -> Any:
            await method(*arguments, **options)
            lost.set()
            raise BusUnavailable("the answer was lost")

        async def hold(method: Any, *arguments: Any, **options: Any) -> Any:
            return not lost.is_set() and await method(*arguments, **options)

        here.transport.streams.overrides["claim"] = claim
        here.transport.records.overrides["compare_and_set"] = hold
        async with here.bus.running(collects(seen, kind, group)):
            await asyncio.wait_for(lost.wait(), 10)
            async with there.bus.running(collects(seen, kind, group)):
                await eventually(lambda: len(seen) >= 4, within=10)
    assert seen == list(range(4))


async def test_of_two_that_sweep_at_once_one_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one may have claimed the oldest just now: newer ones wait until those are done."""
    monkeypatch.setattr(claims, "PAGE", 4)
    monkeypatch.setattr(reclaimer, "SWEEP", 0.05)
    kind, group, seen = unique(), unique(), []
    async with Running(heartbeat_ttl=0.2) as here:
        await publish_one_key(here, kind, range(8))
        await here.deliver_to_the_dead(kind, group, count=8)
        memory, stream = here.memory.streams, f"events:{kind}"
        await here.memory.records.put(record_names.heartbeat("quick"), b"here", ttl=60)
        oldest = [entry.id for entry in await memory.pending(stream, group, count=2)]

        async def claim(method: Any, *arguments: Any, **options: Any) -> Any:
            await memory.claim(stream, group, "quick", oldest, owner="dead")
            return await method(*arguments, **options)

        sweeps = here.transport.streams
        sweeps.overrides["claim"] = claim
        async with here.bus.running(collects(seen, kind, group)):
            await eventually(lambda: sweeps.called("claim"))
            before = len(sweeps.called("pending_summaries"))
            await eventually(lambda: len(sweeps.called("pending_summaries")) >= before + 5)
            assert seen == []
            await memory.ack([(stream, group, oldest)])
            await eventually(lambda: len(seen) >= 6, within=10)
    assert seen == list(range(2, 8))
