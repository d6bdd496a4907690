"""A worker process from inside: its orders, its reports, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from hyperbus import BusUnavailable, Event, HyperbusError, consumer
from hyperbus.errors import (
    AuthenticationError,
    ConsumersNotFoundError,
    DrainTimeoutError,
    InvalidSettingError,
    OutOfMemoryError,
    ServerError,
    WrongTypeError,
)
from hyperbus.settings import Settings
from hyperbus.signals import BackgroundChanged, ConnectionChanged, Handled, WorkerChanged
from hyperbus.supervisor.messages import REPORT_FD, Alive, Failed, Inspected, Orders, Ready, Report
from hyperbus.supervisor.worker_process import main as child
from hyperbus.supervisor.worker_process.server_fault import is_server_at_fault
from hyperbus.transport import NewEntry
from tests.faults import FaultyTransport
from tests.recorder import eventually
from tests.unit.runtime.running import body, unique

SETTINGS = Settings(url="memory://", heartbeat_ttl=0.2, drain_timeout=0.1)


class Orderer:
    """The other end of a process's standard input and of its reports."""

    def __init__(self) -> None:
        self.input, self.output = os.pipe()
        self.reports_in, self.reports_out = os.pipe()
        self._out = os.dup(self.output)

    def order(self, orders: Orders) -> None:
        os.write(self._out, msgspec.json.encode(orders) + b"\n")

    def leave(self) -> None:
        if self._out >= 0:
            os.close(self._out)
            self._out = -1

    def reports(self) -> list[Report]:
        os.set_blocking(self.reports_in, False)
        try:
            lines = os.read(self.reports_in, 65536).splitlines()
        except BlockingIOError:
            return []
        return [msgspec.json.decode(line, type=Report) for line in lines]


@pytest.fixture
def orderer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Orderer]:
    """Make this process a worker process, as far as its code can tell."""
    orderer = Orderer()
    os.close(orderer.output)
    monkeypatch.setattr(sys, "stdin", os.fdopen(orderer.input, "r"))
    monkeypatch.setattr(child, "calm_collector", lambda: None)
    monkeypatch.setattr(child, "end_without_supervisor", lambda *_: None)  # it would end this very process
    monkeypatch.setattr(child, "configure_logs", lambda *_, **__: None)
    monkeypatch.setenv(REPORT_FD, str(orderer.reports_out))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    yield orderer
    orderer.leave()
    sys.stdin.close()
    for descriptor in (orderer.reports_in, orderer.reports_out):
        os.close(descriptor)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def orders(module: str, folder: Path, **more: Any) -> Orders:
    return Orders(modules=(module,), folder=str(folder), settings=SETTINGS, **more)


def test_to_inspect_is_to_load_and_tell(orderer: Orderer, tmp_path: Path) -> None:
    """Nothing runs; a consumer that needs the WebSocket port is told."""
    module = unique("m")
    (tmp_path / f"{module}.py").write_text(
        "from hyperbus import consumer, Event\n"
        "import hyperbus.sinks.websocket\n"
        "@consumer(types=['a'])\nasync def one(event: Event) -> None: ...\n"
    )
    orderer.order(orders(module, tmp_path, only_inspect=True))
    assert child.main(registry=CollectorRegistry()) == 0
    assert orderer.reports() == [Inspected(consumers=("one",), needs_websocket=True)]


def test_an_error_of_the_bus_is_reported_with_its_exit_code(orderer: Orderer, tmp_path: Path) -> None:
    """In words, and not too many."""
    orderer.order(orders("no_such_module" + "x" * 9000, tmp_path))
    assert child.main(registry=CollectorRegistry()) == ConsumersNotFoundError.exit_code
    (failed,) = orderer.reports()
    assert isinstance(failed, Failed)
    assert failed.exit_code == ConsumersNotFoundError.exit_code
    assert len(failed.message) <= 2000


def test_an_error_of_the_users_code_ends_the_process_with_1(orderer: Orderer, tmp_path: Path) -> None:
    """Its traceback is in the log; there is nothing to report."""
    module = unique("m")
    (tmp_path / f"{module}.py").write_text("1 / 0")
    orderer.order(orders(module, tmp_path))
    assert child.main(registry=CollectorRegistry()) == 1
    assert orderer.reports() == []


def test_a_process_whose_supervisor_is_gone_drains_and_ends(orderer: Orderer, tmp_path: Path) -> None:
    """The end of standard input says so."""
    module = unique("m")
    (tmp_path / f"{module}.py").write_text(
        "from hyperbus import consumer, Event\n@consumer(types=['a'])\nasync def one(event: Event) -> None: ...\n"
    )
    orderer.order(orders(module, tmp_path))
    orderer.leave()
    assert child.main(registry=CollectorRegistry()) == 0
    assert Ready() in orderer.reports()


async def work(consumers: list[object], report: Any, settings: Settings = SETTINGS, **more: Any) -> None:
    await child.work(consumers, settings, report, registry=CollectorRegistry(), alive_interval=0.02, **more)


def a_consumer() -> Any:
    @consumer(group=unique(), types=["a"])
    async def handler(event: Event) -> None: ...

    return handler


async def test_it_reports_that_it_is_ready_and_lives_until_it_is_told_to_stop(orderer: Orderer) -> None:
    """Its workers are named before they can be given an entry; then it is ready, and lives, and says what it holds."""
    reports: list[Report] = []
    working = asyncio.create_task(work([a_consumer()], reports.append))
    await eventually(lambda: Ready() in reports and len(reports) >= 5)
    ready = reports.index(Ready())
    named = reports[ready - 1]
    assert isinstance(named, Alive)
    assert len(named.workers) == 1
    os.kill(os.getpid(), signal.SIGINT)  # a terminal's Ctrl-C is the supervisor's business
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(working, 2)
    alive = reports[ready + 1]
    assert isinstance(alive, Alive)
    assert (alive.connected, alive.workers, alive.deliveries) == (True, named.workers, 0)
    assert alive.rss > 10 * 2**20


@pytest.mark.parametrize(("signals", "says"), [(1, "stuck"), (2, "at once")])
async def test_work_that_does_not_end_in_in_time_is_an_error(signals: int, says: str, orderer: Orderer) -> None:
    """It names the group; a second signal does not wait."""
    kind, begun, transport = unique(), asyncio.Event(), FaultyTransport()

    @consumer(group=unique("stuck"), types=[kind])
    async def stuck(event: Event) -> None:
        begun.set()
        await asyncio.Event().wait()

    await transport.open()
    await transport.streams.append([NewEntry(f"events:{kind}", b"data", body(1, kind))])
    settings = msgspec.structs.replace(SETTINGS, drain_timeout=0.05 if signals == 1 else 30.0)
    working = asyncio.create_task(work([stuck], lambda _: None, settings, transport=transport))
    await asyncio.wait_for(begun.wait(), 2)
    for _ in range(signals):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.02)
    with pytest.raises(DrainTimeoutError, match=says):
        await asyncio.wait_for(working, 3)


async def test_a_server_that_is_away_is_the_error_of_the_start(orderer: Orderer, tmp_path: Path) -> None:
    """It reaches the supervisor as it is."""
    settings = msgspec.structs.replace(SETTINGS, url=f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(BusUnavailable):
        await work([a_consumer()], lambda _: None, settings)


class Refusing(FaultyTransport):
    """Raises errors when it is opened, one after another, and then serves."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)

    async def open(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        await super().open()


@pytest.mark.parametrize(
    "error", [BusUnavailable("away"), AuthenticationError("WRONGPASS"), ServerError("MISCONF"), OutOfMemoryError("OOM")]
)
async def test_one_that_follows_others_waits_for_a_server_that_cannot_serve(
    error: HyperbusError, orderer: Orderer
) -> None:
    """With whatever word it refuses; that is said once, and once that it is over."""
    reports: list[Report] = []
    transport = Refusing(error, error)
    with capture_logs() as logs:
        working = asyncio.create_task(work([a_consumer()], reports.append, transport=transport, wait_for_server=True))
        await eventually(lambda: Ready() in reports)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(working, 10)
    assert transport.errors == []
    assert [line["log_level"] for line in logs if "this process" in line["event"]] == ["warning", "info"]


async def test_one_that_waits_for_the_server_ends_when_it_is_told_to(orderer: Orderer, tmp_path: Path) -> None:
    """In good order: it holds nothing."""
    settings = msgspec.structs.replace(SETTINGS, url=f"unix://{tmp_path}/nobody.sock")
    with capture_logs() as logs:
        working = asyncio.create_task(work([a_consumer()], lambda _: None, settings, wait_for_server=True))
        await eventually(lambda: any("waits for it" in line["event"] for line in logs))
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(working, 10)


async def test_what_no_server_mends_is_not_waited_for(orderer: Orderer) -> None:
    """A key of the wrong type stays, and so do a consumer's own mistakes."""
    for error in (WrongTypeError("WRONGTYPE"), InvalidSettingError("no")):
        with pytest.raises(type(error)):
            await work([a_consumer()], lambda _: None, transport=Refusing(error), wait_for_server=True)


def test_a_failure_because_of_the_server_is_reported_as_such() -> None:
    """However deep it is the cause of what a user's code raised; a circle of causes has an end."""
    error = RuntimeError("cannot start")
    error.__cause__ = ValueError("no answer")
    error.__cause__.__context__ = BusUnavailable("away")
    assert is_server_at_fault(error)
    assert not is_server_at_fault(ValueError("mine"))
    circle = ValueError("mine")
    circle.__context__ = RuntimeError("mine too")
    circle.__context__.__context__ = circle
    assert not is_server_at_fault(circle)


def test_who_is_taken_for_dead_is_not_connected() -> None:
    """Heartbeats that do not get through are as bad as reads that do not: others take what the process has."""
    state = child._State()
    state.take(ConnectionChanged("heartbeat", connected=False, kind="heartbeat"))
    assert not state.connected
    state.take(ConnectionChanged("heartbeat", connected=True, kind="heartbeat"))
    assert state.connected


def test_what_fails_in_the_background_is_reported_until_it_runs_again() -> None:
    """At once, by its name."""
    state = child._State()
    assert state.take(BackgroundChanged("finder", running=False, error="x"))
    assert state.take(BackgroundChanged("notifier", running=False))
    assert state.alive(None).failing == ("finder", "notifier")
    assert state.take(BackgroundChanged("finder", running=True))
    assert state.alive(None).failing == ("notifier",)


def test_being_connected_is_what_the_readers_say() -> None:
    """A publisher does not know when the server is back, and a wrong key is no lost server."""
    state = child._State()
    assert not state.take(ConnectionChanged("publisher", connected=False, kind="publisher"))
    assert not state.take(ConnectionChanged("stream events:x", connected=False, kind="stream"))
    assert state.connected
    state.take(ConnectionChanged("reader of g", connected=False, kind="reader"))
    assert not state.connected
    state.take(ConnectionChanged("reader of g", connected=True, kind="reader"))
    assert state.connected
    told = []
    for change in ("started", "cut off", "stopped"):
        assert state.take(WorkerChanged("g", "w", change)), "told at once"
        told.append((state.alive(1.5).workers, set(state.late)))
    assert told == [(("w",), set()), (("w",), {"g"}), ((), {"g"})]
    assert not state.take(Handled("g", {"t": 2, "u": 1}, {"t": 2}, {"t": 1}, (), ()))
    assert (state.alive(1.5).deliveries, state.alive(1.5).oldest_running) == (6, 1.5)


def test_reports_that_nobody_reads_are_dropped() -> None:
    """A full pipe, or one without a reader, does not hold up a process."""
    reading, writing = os.pipe()
    report = child._reporter(writing)
    for _ in range(5000):
        report(Failed(message="x" * 100, exit_code=1))
    os.close(reading)
    report(Ready())
    os.close(writing)
