"""The bus as a whole: loops over events, history, stopping, falling back, settings."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from hyperbus import Bus, BusUnavailable, Event, EventData, HyperbusError, consumer
from hyperbus.errors import AuthenticationError, DeclarationError, InvalidSettingError, WrongTypeError
from hyperbus.settings import Settings
from hyperbus.signals import Acknowledged, WorkerChanged
from hyperbus.transport import Entry
from hyperbus.transports.memory import MemoryTransport
from tests.faults import FaultyTransport
from tests.recorder import eventually
from tests.unit.runtime.running import Running, body, unique


class Read(EventData, type="bus_test.read"):
    n: int


async def take(loop: Any, count: int) -> list[Event]:
    taken: list[Event] = []
    async with asyncio.timeout(10):
        async for event in loop:
            taken.append(event)
            if len(taken) == count:
                break
    return taken


async def test_the_memory_url_is_a_whole_bus() -> None:
    """`memory://` publishes and consumes in one process."""
    kind = unique()
    async with Bus("memory://", settings=Settings(heartbeat_ttl=0.2)) as bus:
        await bus.publish(Event(type=kind, data={"n": 1}))
        (event,) = await take(bus.consume(kind, group="g"), 1)
    assert event.data == {"n": 1}


async def test_a_loop_acks_an_event_when_it_comes_back_for_more() -> None:
    """The event in hand stays pending until then."""
    kind, group = unique(), unique()
    async with Running() as here:
        await here.publish(kind, 1, 2)
        async for event in here.bus.consume(kind, group=group):
            if event.data["n"] == 2:
                await here.recorder.wait_for_one(Acknowledged)
                assert len(await here.pending(kind, group)) == 1
                break


async def test_a_bus_that_closes_waits_for_no_loop_that_was_left_open() -> None:
    """Neither for one with an event in hand, nor for one that waits; nobody will ever come back for more."""
    kind = unique()
    began = asyncio.get_running_loop().time()
    async with Bus("memory://", settings=Settings(drain_timeout=60.0)) as bus:
        await bus.publish(Event(type=kind, data={"n": 1}))
        in_hand, waits = bus.consume(kind, group="g"), bus.consume(unique(), group="g")
        await anext(in_hand)
        waiting = asyncio.ensure_future(anext(waits))
        await asyncio.sleep(0)
    assert asyncio.get_running_loop().time() - began < 20
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_leaving_a_loop_hands_its_event_back() -> None:
    """Another consumer of the group gets it."""
    kind, group = unique(), unique()
    async with Running() as here:
        await here.publish(kind, 1, 2)
        first = await take(here.bus.consume(kind, group=group), 1)
        second = await take(here.bus.consume(kind, group=group), 2)
    assert [event.data["n"] for event in first] == [1]
    assert sorted(event.data["n"] for event in second) == [1, 2]
    assert {s.state for s in here.recorder.of(WorkerChanged)} >= {"started", "stopped"}


async def test_a_loop_decodes_into_its_classes_and_starts_where_it_is_told() -> None:
    """Types may be classes; `start_from` is an entry id here."""
    async with Running() as here:
        first = await here.bus.publish(Read(n=1))
        await here.bus.publish(Read(n=2))
        (event,) = await take(here.bus.consume(Read, group=unique(), start_from=first), 1)
    assert event.data == Read(n=2)


async def test_a_loop_that_cannot_be_says_so() -> None:
    """A wrong type name, a wrong group: refused when the loop begins."""
    async with Running() as here:
        with pytest.raises(DeclarationError):
            await take(here.bus.consume("No Type", group="g"), 1)
        with pytest.raises(HyperbusError):
            await take(here.bus.consume("a", group="no group"), 1)
        with pytest.raises(InvalidSettingError, match="at least one"):
            await take(here.bus.read(), 1)  # type: ignore[call-overload]


async def test_a_loop_ends_with_an_error_when_its_worker_fails() -> None:
    """Nobody waits for a worker that is gone."""
    here = Running()

    async def breaks(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    here.transport.reader_overrides["read_group"] = breaks
    async with here:
        with pytest.raises(ExceptionGroup) as caught:
            await take(here.bus.consume(unique(), group=unique()), 1)
        assert isinstance(caught.value.exceptions[0], ZeroDivisionError)


async def test_a_cancelled_loop_hands_its_event_back() -> None:
    """Cancelled while it waits, or with an event in hand: the worker behind it ends."""
    kind, group = unique(), unique()
    async with Running() as here:
        waiting = asyncio.create_task(take(here.bus.consume(kind, group=group), 1))
        await here.recorder.wait_for_one(WorkerChanged)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await here.recorder.wait_for(lambda _: here.recorder.of(WorkerChanged)[-1].state == "stopped")


async def test_loops_end_when_their_bus_closes() -> None:
    """Both kinds of loop, wherever they wait; the one over a glob of nothing too."""
    kind = unique()
    async with Running() as here:
        await here.publish(kind, 1)
        loops = [
            asyncio.create_task(take(here.bus.consume(kind, group=unique()), 9)),
            asyncio.create_task(take(here.bus.read(kind), 9)),
            asyncio.create_task(take(here.bus.read(f"{unique()}.*"), 9)),
        ]
        await here.recorder.wait_for_one(WorkerChanged)
        await asyncio.sleep(0.05)
    results = await asyncio.wait_for(asyncio.gather(*loops), 2)
    assert [len(result) for result in results] == [1, 1, 0]


async def test_reading_says_why_nothing_can_be_read_and_passes_by_what_is_no_stream() -> None:
    """A loop over it alone would wait for ever; one over others too goes on with those."""
    word = unique()
    async with Running() as here:
        here.memory.set_value(f"events:{word}.broken", b"no stream")
        with pytest.raises(WrongTypeError):
            await asyncio.wait_for(take(here.bus.read(f"{word}.broken"), 1), 5)
        await here.publish(f"{word}.whole", 1)
        (event,) = await asyncio.wait_for(take(here.bus.read(f"{word}.broken", f"{word}.whole"), 1), 5)
        assert event.data["n"] == 1


@pytest.mark.parametrize("after", ["garbage", "$", "1-2-3", "-1"])
async def test_reading_after_what_is_no_entry_id_is_refused(after: str) -> None:
    """Before anything is asked of the server."""
    async with Running() as here:
        with pytest.raises(InvalidSettingError, match="entry id"):
            await take(here.bus.read("x", after=after), 1)


async def test_reading_gives_history_and_then_what_comes() -> None:
    """In the order of the entries, across streams; what is no event is skipped; classes are decoded."""
    word = unique()
    async with Running() as here:
        first = await here.bus.publish(Event(type=f"{word}.a", data={"n": 1}))
        await asyncio.sleep(0.002)
        await here.publish(f"{word}.b", 2)
        await asyncio.sleep(0.002)
        await here.append(f"{word}.a", b"broken", body(3, f"{word}.a"))
        everything = here.bus.read(f"{word}.*")
        events = [await anext(aiter(everything)) for _ in range(3)]
        assert [event.data["n"] for event in events] == [1, 2, 3]
        await here.publish(f"{word}.later", 4)
        assert (await asyncio.wait_for(anext(aiter(everything)), 3)).data["n"] == 4
        later = await take(here.bus.read(f"{word}.a", after=first), 1)
        assert later[0].data["n"] == 3
        await here.bus.publish(Read(n=5))
        assert (await take(here.bus.read(Read), 1))[0].data == Read(n=5)
        await everything.aclose()  # type: ignore[attr-defined]


async def test_reading_many_pages_keeps_the_order_across_streams() -> None:
    """A stream that has more than a page does not let others run ahead."""
    from hyperbus.runtime.iteration import _in_order

    def entries(*numbers: int) -> list[Entry]:
        return [Entry(b"%d-0" % number, []) for number in numbers]

    read = [("a", entries(1, 2, 10)), ("b", entries(5, 11)), ("c", entries(9, 100, 101))]
    assert [entry.id for _, entry in _in_order(read, 3)] == [b"1-0", b"2-0", b"5-0", b"9-0", b"10-0"]
    assert len(_in_order([("a", entries(1, 2)), ("b", entries(9))], 3)) == 3


async def test_reading_survives_an_outage() -> None:
    """It goes on where it was."""
    kind, failures = unique(), [1]
    here = Running()

    async def away(read: Any, *arguments: Any, **options: Any) -> Any:
        result = await read(*arguments, **options)
        if result and failures:
            failures.pop()
            raise BusUnavailable("the answer was lost")
        return result

    here.transport.reader_overrides["read"] = away
    async with here:
        await here.publish(kind, 1)
        (event,) = await take(here.bus.read(kind), 1)
    assert event.data["n"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_run_drains_when_it_is_signalled(number: signal.Signals) -> None:
    """The running handler is finished, and the program goes on after `run`."""
    kind, done = unique(), []

    @consumer(group=unique(), types=[kind])
    async def handler(event: Event) -> None:
        os.kill(os.getpid(), number)
        await asyncio.sleep(0.03)
        done.append(event.data["n"])

    async with Running() as here:
        await here.publish(kind, 1)
        await asyncio.wait_for(here.bus.run(handler), 3)
    assert done == [1]


async def test_a_second_signal_stops_run_at_once() -> None:
    """Whoever asks twice does not want to wait."""
    kind = unique()
    begun = asyncio.Event()

    @consumer(group=unique(), types=[kind])
    async def handler(event: Event) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with Running(drain_timeout=30) as here:
        await here.publish(kind, 1)
        running = asyncio.create_task(here.bus.run(handler))
        await asyncio.wait_for(begun.wait(), 2)
        os.kill(os.getpid(), signal.SIGTERM)
        await here.recorder.wait_for(lambda _: any(s.state == "draining" for s in here.recorder.of(WorkerChanged)))
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 3)


async def test_a_server_that_is_away_ends_the_start_unless_memory_may_stand_in(tmp_path: Path) -> None:
    """The fallback is loud; without it the error is `BusUnavailable`."""
    nowhere = f"unix://{tmp_path}/nobody.sock"
    with pytest.raises(BusUnavailable):
        async with Bus(nowhere, settings=Settings()):
            pass
    with capture_logs() as logs:
        async with Bus(nowhere, fallback="memory", settings=Settings()) as bus:
            assert bus.transport.description == "memory://"
            await bus.publish(Event(type=unique(), data={}))
    assert any("memory" in log["event"] and log["log_level"] == "warning" for log in logs)
    with pytest.raises(InvalidSettingError, match="fallback"):
        Bus("memory://", fallback="disk")  # type: ignore[arg-type]


async def test_without_a_url_the_folder_of_the_embedded_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is told with its folder; the environment comes before it."""
    asked: list[str] = []

    def connects(url: str, **_: Any) -> Any:
        asked.append(url)
        return FaultyTransport()

    monkeypatch.setattr("hyperbus.bus.connect", connects)
    monkeypatch.delenv("HYPERBUS_URL", raising=False)
    with capture_logs() as logs:
        async with Bus(settings=Settings()):
            pass
    assert asked == ["embedded://.hyperbus"]
    assert logs[0]["folder"] == str(Path(".hyperbus").absolute())
    monkeypatch.setenv("HYPERBUS_URL", "memory://from-environment")
    async with Bus():
        pass
    assert asked[-1] == "memory://from-environment"


async def test_a_prefix_keeps_buses_apart() -> None:
    """It is checked, and it begins every stream's key."""
    with pytest.raises(InvalidSettingError, match="prefix"):
        Bus("memory://", prefix="no:colon")
    kind = unique()
    async with Bus("memory://", prefix="mine", settings=Settings()) as bus:
        await bus.publish(Event(type=kind, data={}))
        assert await bus.transport.streams.scan("mine:*") == [f"mine:{kind}"]


async def test_a_bus_that_was_left_open_by_a_loop_still_closes() -> None:
    """A loop that nobody finishes does not hold the bus."""
    kind = unique()
    async with Running() as here:
        await here.publish(kind, 1)
        loop = here.bus.consume(kind, group=unique())
        assert (await anext(aiter(loop))).data["n"] == 1
    await eventually(lambda: here.recorder.of(WorkerChanged)[-1].state == "stopped")
    await loop.aclose()  # type: ignore[attr-defined]


async def test_a_refused_password_is_no_reason_to_go_on_in_memory() -> None:
    """The server is there: events that it should have would be lost, and the mistake hidden."""

    class Refusing(MemoryTransport):
        async def open(self) -> None:
            raise AuthenticationError("wrong password")

    with pytest.raises(AuthenticationError, match="wrong password"):
        await Bus(transport=Refusing(), fallback="memory", settings=Settings()).__aenter__()


def test_who_only_publishes_loads_no_runtime() -> None:
    """It is most of the files of this library, and would be felt at the start of every program."""
    code = (
        "import asyncio, sys; from hyperbus import Bus, Event, SyncPublisher, consumer\n"
        "async def main():\n"
        "    async with Bus('memory://') as bus:\n"
        "        await bus.publish(Event(type='t', data={}))\n"
        "asyncio.run(main())\n"
        "sys.exit('hyperbus.runtime' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
