"""Who is taken for dead, and when: pauses, refusals and clocks that differ make nobody so who lives."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from hyperbus import Delivery, Event, Retry, consumer
from hyperbus.clock import SystemClock
from hyperbus.signals import Claimed, ConnectionChanged, RetryScheduled, WorkerChanged
from tests.faults import FaultyTransport
from tests.recorder import Recorder, eventually
from tests.refusing import WAYS, refusing
from tests.servers import Server
from tests.symptoms import a_bus, collects, publish, settled
from tests.unit.runtime.running import Running, unique

pytestmark = pytest.mark.one_server


class Holding:
    """Two workers of one group, each with a handler that runs until it is let go."""

    def __init__(self) -> None:
        self.kind = unique()
        self.begun = Counter[int]()
        self.release = asyncio.Event()
        self.recorder = Recorder()

    def declared(self) -> Any:
        @consumer(group=self.kind, types=[self.kind], concurrency=50)
        async def handler(event: Event) -> None:
            self.begun[event.data["n"]] += 1
            await self.release.wait()

        return handler

    async def publish_until_both_hold(self, bus: Any) -> None:
        for n in range(40):
            (summary,) = await bus.transport.streams.pending_summaries([(f"events:{self.kind}", self.kind)])
            if len(summary.consumers) == 2:
                return
            await publish(bus, self.kind, n)
        raise AssertionError("one worker takes it all")


@pytest.mark.parametrize("what", ["WRITE", "ALL"])
async def test_a_pause_of_the_server_makes_nobody_dead(server: Server, what: str) -> None:
    """Live workers were declared dead some milliseconds after the server answered again."""
    held = Holding()
    async with (
        refusing(server.binary) as here,
        a_bus(here.server, held.recorder) as bus,
        a_bus(here.server, held.recorder) as other,
        bus.running(held.declared()),
        other.running(held.declared()),
    ):
        await held.publish_until_both_hold(bus)
        await asyncio.sleep(0.6)  # from now on they may judge
        for _ in range(3):
            await here.command("CLIENT", "PAUSE", 700, what)
            await asyncio.sleep(1.0)
        held.release.set()
        await settled(bus, held.kind)
    assert held.recorder.of(Claimed) == []
    assert set(held.begun.values()) == {1}


@pytest.mark.parametrize("way", ["MISCONF", "OOM", "NOPERM", "-pexpire", "BUSY"])
async def test_a_server_that_refuses_heartbeats_makes_nobody_dead(server: Server, way: str) -> None:
    """Who cannot say that it lives is not dead for that: nobody else can, either."""
    held = Holding()
    async with (
        refusing(server.binary) as here,
        a_bus(here.server, held.recorder, url=here.url) as bus,
        a_bus(here.server, held.recorder, url=here.url) as other,
        bus.running(held.declared()),
        other.running(held.declared()),
    ):
        await held.publish_until_both_hold(bus)
        await asyncio.sleep(0.6)
        for _ in range(2):
            if way in WAYS:
                async with WAYS[way](here):
                    await asyncio.sleep(0.8)
            else:
                await here.rights(way)
                await asyncio.sleep(0.8)
                await here.rights("+@all")
            await asyncio.sleep(0.3)
        held.release.set()
        await settled(bus, held.kind, within=20)
    assert held.recorder.of(Claimed) == []
    assert set(held.begun.values()) == {1}


async def test_a_heartbeat_that_nobody_renews_ends_though_the_clock_of_the_server_was_set_back() -> None:
    """Set back by 40 s as a host died, it kept the heartbeat, and so what the dead one had, for 42 s."""
    kind, seen = unique(), list[tuple[int, int]]()
    began, set_back = time.time(), 0.0

    async def lifetimes(_: Any, names: list[str]) -> tuple[float, list[float | None]]:
        return time.time() - set_back, [began + 2.0 for _ in names]

    async with Running(heartbeat_ttl=0.4) as here:
        await here.publish(kind, 0)
        await here.deliver_to_the_dead(kind, kind)
        await here.memory.records.put("worker:dead", b"about", ttl=42)
        here.transport.records.overrides["lifetimes"] = lifetimes
        async with here.bus.running(collects(seen, kind)):
            await asyncio.sleep(1.0)
            set_back = 40.0
            assert seen == []
            await eventually(lambda: seen == [(0, 2)])


async def test_heartbeats_that_all_end_at_once_as_the_clock_of_the_server_is_set_forward_make_nobody_dead() -> None:
    """They are renewed a moment later."""
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()
    ahead, gone, asked = 0.0, False, 0

    async def get(method: Any, names: list[str]) -> list[bytes | None]:
        return [None for _ in names] if gone else await method(names)

    async def lifetimes(_: Any, names: list[str]) -> tuple[float, list[float | None]]:
        nonlocal asked
        asked += 1
        now = time.time() + ahead
        return now, [None if gone else now + 0.4 for _ in names]

    async with Running(heartbeat_ttl=0.4) as here:
        here.recorder = recorder
        await here.publish(kind, 0)
        await here.deliver_to_the_dead(kind, kind, consumer="lives")
        await here.memory.records.put("worker:lives", b"about")
        here.transport.records.overrides |= {"get": get, "lifetimes": lifetimes}
        async with here.bus.running(collects(seen, kind)):
            await asyncio.sleep(1.0)
            ahead, gone, asked = 40.0, True, 0
            await asyncio.sleep(0.3)  # at least one look, and less than a TTL
            gone = False
            await asyncio.sleep(1.0)
            assert seen == []


@pytest.mark.parametrize("ahead", [600.0, -600.0])
async def test_a_wait_is_as_long_as_it_was_meant_whatever_the_clock_of_who_failed_says(
    server: Server, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """Ten minutes ahead, it was parked for ten minutes; ten minutes behind, it was tried again at once."""
    kind, tried = unique(), list[tuple[int, float]]()

    @consumer(group=kind, types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        tried.append((delivery.tries, time.monotonic()))
        if delivery.tries == 1:
            raise Retry(after=1.5)

    async def scheduled(bus: Any) -> float | None:
        """Return for how long the entry waits, as the server has it."""
        stream = f"events:{kind}"
        now = await bus.transport.records.server_time()
        found = await bus.transport.streams.pending(stream, kind)
        (due,) = await bus.transport.streams.retry_times(stream, kind, [found[0].id]) if found else [None]
        return None if due is None else due - now

    recorder = Recorder()
    real = time.time
    monkeypatch.setattr(SystemClock, "now", staticmethod(lambda: real() + ahead))
    async with a_bus(server, recorder) as bus:
        async with bus.running(handler):
            await publish(bus, kind, 0)
            await recorder.wait_for_one(RetryScheduled)
            async with asyncio.timeout(10):
                while (wait := await scheduled(bus)) is None:
                    await asyncio.sleep(0.005)
            assert -8.0 < wait <= 1.6
        monkeypatch.undo()
        async with bus.running(handler):
            await eventually(lambda: len(tried) == 2)
    (_, first), (tries, second) = tried
    assert tries == 2
    assert second - first >= 1.4


@pytest.mark.parametrize("ahead", [600.0, -600.0])
async def test_what_is_parked_is_due_by_the_clock_of_the_server(
    server: Server, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """A client ten minutes behind: `Retry(after=70)` came at once."""
    kind, seen = unique(), list[int]()

    @consumer(group=kind, types=[kind])
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])
        raise Retry(after=70)

    real = time.time
    monkeypatch.setattr(SystemClock, "now", staticmethod(lambda: real() + ahead))
    async with a_bus(server) as bus, bus.running(handler):
        await publish(bus, kind, 0)
        stream = f"events:{kind}"
        async with asyncio.timeout(10):
            while await bus.transport.streams.parked_count([(stream, kind)]) != [1]:
                await asyncio.sleep(0.01)
        (due,) = await bus.transport.streams.next_parked([(stream, kind)])
        assert due is not None
        assert 50 < due - await bus.transport.records.server_time() <= 71
    assert seen == [0]


# -- the heartbeat's own thread

Break = Callable[[Any], None]


def no_descriptors(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EMFILE, "Too many open files")


async def unexpected(*_: Any, **__: Any) -> Any:
    raise RuntimeError("can't start new thread")


class Beating(FaultyTransport):
    """A memory transport, of which the heartbeat's own one fails as a test says, a few times."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.failures = 3
        self.failed = threading.Event()

    def separate(self) -> Any:
        if self.where == "separate" and self._fails():
            no_descriptors()
        other = FaultyTransport(self.inner.separate())
        really_open = other.open

        async def opens() -> None:
            if self.where == "open" and self._fails():
                no_descriptors()
            await really_open()

        async def renews(renew: Any, *arguments: Any, **named: Any) -> Any:
            if self.where == "renew" and self._fails():
                raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
            return await renew(*arguments, **named)

        other.open = opens  # type: ignore[method-assign]
        other.records.overrides["renew"] = renews
        return other

    def _fails(self) -> bool:
        self.failures -= 1
        if self.failures < 0:
            return False
        self.failed.set()
        return True


@pytest.mark.parametrize("where", ["separate", "open", "renew"])
async def test_a_heartbeat_goes_on_after_whatever_went_wrong(where: str) -> None:
    """It ended for good for want of a file descriptor: the worker lived, was ready, and its entries were done twice."""
    kind, transport = unique(), Beating(where)
    async with Running(transport) as here, here.bus.running(collects([], kind)):
        name = here.recorder.of(WorkerChanged)[0].consumer
        await eventually(transport.failed.is_set)
        await here.memory.records.delete([f"worker:{name}"])

        async def is_alive() -> bool:
            return (await here.memory.records.get([f"worker:{name}"])) != [None]

        async with asyncio.timeout(10):
            while not await is_alive():
                await asyncio.sleep(0.01)


async def test_a_heartbeat_that_does_not_get_through_is_told_and_so_is_its_return() -> None:
    """Readiness goes by it: others take the worker for dead meanwhile."""
    kind, transport = unique(), Beating("renew")
    transport.failures = 20

    def changes(here: Running) -> list[bool]:
        return [signal.connected for signal in here.recorder.of(ConnectionChanged) if signal.kind == "heartbeat"]

    async with Running(transport) as here, here.bus.running(collects([], kind)):
        await here.recorder.wait_for(lambda _: changes(here) == [False])
        transport.failures = 0
        await here.recorder.wait_for(lambda _: changes(here) == [False, True])
