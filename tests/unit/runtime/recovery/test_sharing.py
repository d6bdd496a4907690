"""What a busy worker gives to idle ones, what they say to each other, and what happens when word or a worker gets lost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Self

import msgspec
import pytest

from hyperbus import BusUnavailable, Delivery, Event, consumer
from hyperbus.runtime.recovery import sharing
from hyperbus.runtime.recovery.sharing import IDLE, OVERLOADED, Idle, Overloaded
from hyperbus.signals import Recovered
from tests.faults import FaultyTransport
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique


class Two:
    """Workers of one group on one memory: the first holds what it will not begin soon."""

    def __init__(self) -> None:
        self.kind, self.group = unique(), unique()
        self.first, self.second = list[tuple[int, int]](), list[tuple[int, int]]()
        self.release = asyncio.Event()
        self.busy = FaultyTransport()
        self.idle = FaultyTransport(self.busy.inner.separate())
        self._stack = AsyncExitStack()
        #: Ends the first worker.
        self.leaving = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Let the first take quick events, and then one in which it is stuck, with 20 behind it."""

        @consumer(group=self.group, types=[self.kind])
        async def stuck(event: Event, delivery: Delivery) -> None:
            self.first.append((event.data["n"], delivery.tries))
            if event.data["n"] == 500:
                await self.release.wait()

        self.here = await self._stack.enter_async_context(Running(self.busy, drain_timeout=0.1))
        await self.here.publish(self.kind, *range(521))
        await self._stack.enter_async_context(self.leaving)
        await self.leaving.enter_async_context(self.here.bus.running(stuck))
        await eventually(lambda: (500, 1) in self.first)
        return self

    async def __aexit__(self, *arguments: object) -> None:
        self.release.set()
        await self._stack.aclose()

    async def join(self, *, concurrency: int = 1) -> None:
        """Let the second come, which is idle."""

        @consumer(group=self.group, types=[self.kind], concurrency=concurrency)
        async def free(event: Event, delivery: Delivery) -> None:
            self.second.append((event.data["n"], delivery.tries))

        self.there = await self._stack.enter_async_context(Running(self.idle, drain_timeout=0.1))
        await self._stack.enter_async_context(self.there.bus.running(free))

    def shared(self) -> bool:
        """Tell whether the second has had all that was behind the first."""
        return sorted(self.second) == [(n, 1) for n in range(501, 521)]


def notices(transport: FaultyTransport, kind: bytes) -> list[bytes]:
    """Return the bodies of the notices of a kind that were given."""
    return [arguments[2] for arguments in transport.streams.called("append_notice") if arguments[1] == kind]


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_who_is_idle_gets_what_another_will_not_begin(concurrency: int) -> None:
    """All of it, untried, and nothing is said to be amiss."""
    async with Two() as two:
        await two.join(concurrency=concurrency)
        await eventually(two.shared)
        assert {signal.handed_over for signal in two.there.recorder.of(Recovered)} == {True}


async def test_without_anybody_idle_it_stays_and_is_asked_for_now_and_then() -> None:
    """Who holds too much says so about once a second, and handles it itself in the end."""
    async with Two() as two:
        await eventually(lambda: len(notices(two.busy, OVERLOADED)) >= 2)
        first = msgspec.json.decode(notices(two.busy, OVERLOADED)[0], type=Overloaded)
        assert (first.group, 1 <= first.entries <= 20) == (two.group, True)
        assert len(two.busy.streams.called("hand_over")) == 0
        two.release.set()
        await eventually(lambda: len(two.first) == 521)


async def test_nothing_is_said_while_all_are_quick_or_all_are_idle() -> None:
    """But that a worker has come, once."""
    transport, kind, seen = FaultyTransport(), unique(), list[int]()

    @consumer(group=unique(), types=[kind])
    async def quick(event: Event) -> None:
        seen.append(event.data["n"])

    async with Running(transport) as here, here.bus.running(quick):
        await eventually(lambda: notices(transport, IDLE))
        for start in range(0, 5_000, 500):
            await here.publish(kind, *range(start, start + 500))
        await eventually(lambda: len(seen) == 5_000)
        await asyncio.sleep(2 * sharing.LOOK)
        assert [msgspec.json.decode(body, type=Idle).to for body in notices(transport, IDLE)] == [""]
        assert notices(transport, OVERLOADED) == []


async def test_what_was_handed_over_unheard_is_found_by_its_new_owner_and_begun_by_nobody_else() -> None:
    """The answer got lost: the giver looks what is still its own."""
    async with Two() as two:
        lost = list[Any]()

        async def unheard(hand_over: Any, *arguments: Any) -> Any:
            answer = await hand_over(*arguments)
            if not lost:
                lost.append(arguments)
                raise BusUnavailable("the answer was lost")
            return answer

        two.busy.streams.overrides["hand_over"] = unheard
        await two.join(concurrency=4)
        await eventually(lambda: lost)
        two.release.set()
        await eventually(lambda: len(two.first) + len(two.second) == 521, within=20)
    both = sorted(n for n, _ in two.first + two.second)
    assert both == list(range(521))


async def test_what_a_worker_was_just_giving_away_when_it_stopped_is_not_lost() -> None:
    """It goes with the rest, untried."""
    async with Two() as two:
        giving = asyncio.Event()

        async def hangs(_: Any, *__: Any) -> Any:
            giving.set()
            await asyncio.Event().wait()

        two.busy.streams.overrides["hand_over"] = hangs
        await two.join()
        await asyncio.wait_for(giving.wait(), 10)
        del two.busy.streams.overrides["hand_over"]
        await two.leaving.aclose()
        await eventually(lambda: {n for n, _ in two.second} >= set(range(501, 521)))
    assert {tries for n, tries in two.second if n > 500} == {1}


async def test_notices_that_make_no_sense_do_nothing() -> None:
    """Anybody can write one."""
    async with Two() as two:
        for kind in (OVERLOADED, IDLE):
            for body in (b"\xff", b"[]", b"{}", b'{"group":1}'):
                await two.busy.inner.streams.append_notice("hyperbus:events:notices", kind, body, keep=1000)
        strangers = [Idle("another group", "x", "", 5), Idle(two.group, "nobody", "somebody else", 5)]
        for stranger in strangers:
            body = msgspec.json.encode(stranger)
            await two.busy.inner.streams.append_notice("hyperbus:events:notices", IDLE, body, keep=1000)
        await two.join()
        await eventually(two.shared)


async def test_an_asker_that_takes_no_offer_keeps_no_other_from_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have ended meanwhile: the next one is offered help, however long the first is remembered."""
    monkeypatch.setattr(sharing, "REMEMBERED", 600.0)
    transport, group, kind = FaultyTransport(), unique(), unique()

    @consumer(group=group, types=[kind])
    async def free(event: Event) -> None: ...

    def offered() -> list[str]:
        """Return who was offered help, once each: between two reads an offer may look as if it was taken."""
        return list(dict.fromkeys(msgspec.json.decode(body, type=Idle).to for body in notices(transport, IDLE)))

    async with Running(transport) as here, here.bus.running(free):
        await eventually(lambda: offered() == [""])
        for asker in ("gone", "another", "a third"):
            body = msgspec.json.encode(Overloaded(group, asker, 5))
            await transport.inner.streams.append_notice("hyperbus:events:notices", OVERLOADED, body, keep=1000)
        await eventually(lambda: offered() == ["", "gone", "another", "a third"])
