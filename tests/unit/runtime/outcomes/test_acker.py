"""Acks go out in batches: at once after a rest, then not before the next one is worth its round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self, cast

import pytest

from hyperbus import Event, consumer
from hyperbus.clock import SystemClock
from hyperbus.errors import BusUnavailable, ServerError, WrongTypeError
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import receive
from hyperbus.runtime.outcomes import acker as acking
from hyperbus.runtime.outcomes.acker import Acker
from hyperbus.signals import Announcer
from hyperbus.transport import Streams
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique


class Server:
    """Takes acks, and tells how many ids each call carried."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.away = False
        #: How often it still refuses, and how often it has.
        self.refuses = self.refused = 0

    async def ack(self, acks: Sequence[tuple[str, str, Sequence[bytes]]]) -> list[int]:
        await asyncio.sleep(0)
        if self.away:
            raise BusUnavailable("away")
        if self.refuses:
            self.refuses -= 1
            self.refused += 1
            raise ServerError("no")
        self.calls.append(sum(len(ids) for _, _, ids in acks))
        return [len(ids) for _, _, ids in acks]


class Acking:
    """An acker at work on a server."""

    def __init__(self, prefetch: int = 1000) -> None:
        self.server = Server()
        member = Member("g", "c", cast("Streams", self.server), SystemClock(), Announcer())
        self.inbox = Inbox(1000, 1_000_000)
        self.acker = Acker(member, self.inbox, prefetch=prefetch)
        self._number = 0

    def add(self, count: int) -> None:
        """Let the next ids be acked."""
        ids = [b"%d-0" % number for number in range(self._number, self._number + count)]
        self.acker.add(self.inbox.hold("s", receive("s", "t", [(entry_id, []) for entry_id in ids], 0.0)))
        self._number += count

    @property
    def released(self) -> int:
        """How many are not held any more."""
        return self._number - self.inbox.held

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.acker.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.acker.close()
        await asyncio.wait_for(self._running, 5)


@pytest.fixture(autouse=True)
def _long_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rest that no test outlasts unless it means to."""
    monkeypatch.setattr(acking, "REST", 60.0)


async def test_the_first_ack_goes_out_at_once_and_the_next_waits() -> None:
    """Closing ends the rest, and loses nothing."""
    async with Acking() as here:
        here.add(1)
        await eventually(lambda: here.server.calls == [1])
        for _ in range(20):
            here.add(1)
            await asyncio.sleep(0)
        assert here.server.calls == [1]
    assert here.server.calls == [1, 20]
    assert here.released == 21


async def test_enough_ids_end_the_rest() -> None:
    """A busy worker does not wait for the clock."""
    async with Acking() as here:
        here.add(1)
        await eventually(lambda: here.server.calls == [1])
        here.add(acking.ENOUGH - 1)
        await asyncio.sleep(0.01)
        assert here.server.calls == [1]
        here.add(1)
        await eventually(lambda: here.server.calls == [1, acking.ENOUGH])


@pytest.mark.parametrize(("prefetch", "enough"), [(1, 1), (7, 1), (8, 2), (100, 25)])
async def test_a_small_prefetch_is_not_kept_from_reading(prefetch: int, enough: int) -> None:
    """No more than a quarter of what may be held waits to be acked."""
    async with Acking(prefetch) as here:
        for number in range(1, 6):
            here.add(enough)
            await eventually(lambda number=number: here.server.calls == [enough] * number)  # type: ignore[misc]


async def test_who_waits_for_an_ack_need_not_wait_for_the_rest() -> None:
    """Neither for what has gathered, nor for what comes next."""
    async with Acking() as here:
        here.add(1)
        await eventually(lambda: here.server.calls == [1])
        here.add(2)
        here.acker.hurry()
        await eventually(lambda: here.server.calls == [1, 2])
        here.acker.hurry()
        here.add(3)
        await eventually(lambda: here.server.calls == [1, 2, 3])
        here.add(4)
        await asyncio.sleep(0.01)
        assert here.server.calls == [1, 2, 3]


async def test_a_worker_whose_hold_is_full_of_handled_events_does_not_rest() -> None:
    """By bytes it holds four of them at a time."""
    kind, seen = unique(), []

    @consumer(group=unique(), types=[kind])
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async with Running(prefetch_bytes=40_000) as here:
        await here.bus.publish_many([Event(type=kind, data={"n": n, "text": "x" * 10_000}) for n in range(50)])
        async with here.bus.running(handler):
            await eventually(lambda: len(seen) == 50)


async def test_a_rest_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ids of a burst are acked though nothing follows them."""
    monkeypatch.setattr(acking, "REST", 0.001)
    async with Acking() as here:
        here.add(1)
        await eventually(lambda: here.server.calls == [1])
        here.add(2)
        await eventually(lambda: sum(here.server.calls) == 3)


async def test_what_is_added_while_the_server_is_away_is_acked_when_it_is_back() -> None:
    """And nothing is released before."""
    async with Acking() as here:
        here.server.away = True
        here.add(3)
        await asyncio.sleep(0.01)
        here.add(acking.ENOUGH)
        assert here.released == 0
        here.server.away = False
        await eventually(lambda: here.released == 3 + acking.ENOUGH)
    assert here.server.calls == [3, acking.ENOUGH]


async def test_what_is_refused_when_the_worker_ends_is_asked_again_until_it_is_acked() -> None:
    """Its handlers have run: they would run again elsewhere."""
    async with Acking() as here:
        here.server.refuses = 3
        here.add(2)
        await eventually(lambda: here.server.refused)
        assert here.released == 0
    assert here.server.calls == [2]
    assert here.released == 2


@pytest.mark.parametrize("odd", [0, 1, 2])
async def test_a_stream_that_cannot_be_acked_keeps_no_other_from_it(odd: int) -> None:
    """Whichever of those that are acked together it is."""
    kinds, group, refused = [unique() for _ in range(3)], unique(), list[str]()
    good = [kind for place, kind in enumerate(kinds) if place != odd]

    @consumer(group=group, types=kinds, batch=3, linger=60)
    async def handler(events: list[Event]) -> None: ...

    async def refuses(ack: Any, acks: Any) -> Any:
        if any(stream == f"events:{kinds[odd]}" for stream, _, _ in acks):
            refused.append(kinds[odd])
            raise WrongTypeError("no stream any more")
        return await ack(acks)

    async with Running() as here:
        here.transport.streams.overrides["ack"] = refuses
        for kind in kinds:
            await here.publish(kind, 1)
        async with here.bus.running(handler), asyncio.timeout(10):
            while any([await here.pending(kind, group) for kind in good]) or not refused:
                await asyncio.sleep(0.005)
            assert len(await here.pending(kinds[odd], group)) == 1
