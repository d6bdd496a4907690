"""What runs in a worker process: load the consumers, run them, report. Ends when its supervisor does."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import msgspec
from prometheus_client import REGISTRY, CollectorRegistry

from hyperbus.background import BackgroundTasks
from hyperbus.bus import Bus
from hyperbus.clock import Seconds
from hyperbus.declaration.consumer import declaration_of
from hyperbus.error_text import describe, error_info, place_of
from hyperbus.errors import DrainTimeoutError, HyperbusError
from hyperbus.event.data import event_types
from hyperbus.logger import get_logger
from hyperbus.observability.logs import configure_logs
from hyperbus.observability.metrics import BusMetrics
from hyperbus.observability.standard_streams import guard_standard_streams
from hyperbus.process_signals import ProcessSignals
from hyperbus.settings import Settings, to_environment
from hyperbus.signals import BackgroundChanged, ConnectionChanged, Handled, Signal, SuspectRuns, WorkerChanged
from hyperbus.supervisor.memory import bound_allocations, own_rss
from hyperbus.supervisor.messages import REPORT_FD, Alive, Failed, Inspected, Orders, Ready, Report
from hyperbus.supervisor.waiting import until_first
from hyperbus.supervisor.worker_process.counts_file import count_in_safe_files
from hyperbus.supervisor.worker_process.event_loop import chosen_loop, loop_factory
from hyperbus.supervisor.worker_process.garbage_collector import calm_collector
from hyperbus.supervisor.worker_process.loading import import_failure, load_consumers
from hyperbus.supervisor.worker_process.orphan_watchdog import end_without_supervisor
from hyperbus.supervisor.worker_process.server_fault import is_server_at_fault
from hyperbus.transport import Transport

#: How often a process says that its event loop turns, in seconds.
ALIVE_INTERVAL: Seconds = 0.5
#: How often a server that cannot serve is asked again, at the start.
_ASK_AGAIN: Seconds = 0.5
#: Characters of an error that are reported; a report has to fit into the pipe at once.
_MESSAGE_LIMIT = 2000
#: A module that is loaded when a consumer needs the WebSocket port.
_WEBSOCKET_SINK = "hyperbus.sinks.websocket"


def main(*, registry: CollectorRegistry = REGISTRY) -> int:
    """Run a worker process, which counts in `registry`; return its exit code. The orders come on standard input."""
    report, log = _reporter(int(os.environ.pop(REPORT_FD))), get_logger("hyperbus.supervisor")
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    os.environ.update(to_environment(orders.settings))  # sinks of the user's consumers load their settings from there
    configure_logs(orders.settings.log_level, orders.settings.log_format)
    guard_standard_streams()
    count_in_safe_files()
    if not orders.only_inspect:
        bound_allocations(orders.settings.max_rss)
        end_without_supervisor(sys.stdin.fileno(), orders.settings.drain_timeout)
    try:
        if orders.only_inspect:
            report(_inspect(orders))
            return 0
        consumers = load_consumers(orders.modules, folder=Path(orders.folder))
        with asyncio.Runner(loop_factory=loop_factory(chosen_loop(orders.settings.loop))) as runner:
            runner.run(
                work(consumers, orders.settings, report, registry=registry, wait_for_server=orders.wait_for_server)
            )
    except HyperbusError as error:
        _report_failure(report, error, error.exit_code)
        return error.exit_code
    except Exception as error:
        words, at, info = describe(error), place_of(error), error_info(error)
        log.error("a consumer ended its process", error=words, at=at, exc_info=info)  # noqa: TRY400 - the same
        if is_server_at_fault(error):
            _report_failure(report, error, HyperbusError.exit_code)
        return HyperbusError.exit_code
    return 0


def _inspect(orders: Orders) -> Inspected:
    """Look at the modules, before anything runs.

    Raises:
        HyperbusError: they cannot be used; what an import raised is in the log, with its traceback.
    """
    try:
        consumers = load_consumers(orders.modules, folder=Path(orders.folder))
    except HyperbusError:
        raise
    except (Exception, SystemExit) as error:
        log = get_logger("hyperbus.supervisor")
        log.error("a module cannot be imported", exc_info=error_info(error))  # noqa: TRY400 - without our own frames
        raise import_failure(error) from error
    event_types()  # two classes with one type are told before anything runs
    names = tuple(declaration_of(consumer).name for consumer in consumers)
    return Inspected(consumers=names, needs_websocket=_WEBSOCKET_SINK in sys.modules)


async def work(
    consumers: list[object],
    settings: Settings,
    report: Callable[[Report], None],
    *,
    registry: CollectorRegistry = REGISTRY,
    transport: Transport | None = None,
    alive_interval: Seconds = ALIVE_INTERVAL,
    wait_for_server: bool = False,
) -> None:
    """Run consumers until told to stop, and report meanwhile.

    With `wait_for_server`, a server that cannot serve at the start is asked again until it can.

    Raises:
        HyperbusError: they could not start, or one failed.
        DrainTimeoutError: handlers were still running when the drain time was up.
    """
    state = _State()

    def tell() -> None:
        report(state.alive(state.bus.oldest_running() if state.bus else None))

    def hear(announced: Signal) -> None:
        if state.take(announced):
            tell()

    listeners = (hear, BusMetrics(registry))
    try:
        with _orders_to_stop() as stopped:
            async with _telling(tell, alive_interval):
                while not stopped.is_set():
                    state.bus = bus = Bus(settings=settings, transport=transport, listeners=listeners)
                    try:
                        async with bus, bus.running(*consumers):
                            state.tell_ready()
                            report(Ready())
                            calm_collector()
                            await stopped.wait()
                    except HyperbusError as error:
                        if state.ready or not wait_for_server or not is_server_at_fault(error):
                            raise
                        state.tell_waiting(error)
                        await until_first(stopped, within=_ASK_AGAIN)
    except asyncio.CancelledError:
        raise DrainTimeoutError("stopped at once, as asked; what was in flight will be handled again") from None
    _check_late(state.late, settings.drain_timeout)


def _check_late(late: Collection[str], drain_timeout: Seconds) -> None:
    """Raise DrainTimeoutError if handlers of some groups had to be cut off."""
    if late:
        raise DrainTimeoutError(
            f"handlers of {', '.join(sorted(late))} were still running after {drain_timeout:g} s; "
            f"what was in flight will be handled again"
        )


@contextmanager
def _orders_to_stop() -> Generator[asyncio.Event]:
    """Yield what is set when this process is to stop: by a signal, or by the end of its supervisor.

    A second signal cancels the task.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def stop() -> None:
        if stopped.is_set() and task is not None:
            task.cancel()
        stopped.set()

    ProcessSignals({signal.SIGTERM: stop, signal.SIGINT: lambda: None}).take()
    loop.add_reader(sys.stdin.fileno(), _read_end, loop, stopped)
    try:
        yield stopped
    finally:
        loop.remove_reader(sys.stdin.fileno())


class _State:
    """What the reports tell, gathered from signals; and how far the start has come."""

    def __init__(self) -> None:
        self.bus: Bus | None = None
        self.ready = False
        self._waits = False
        self._log = get_logger("hyperbus.supervisor")
        self._lost: set[str] = set()
        self._failing: set[str] = set()
        self.workers: set[str] = set()
        self.late: set[str] = set()
        self.deliveries = 0
        self.alone = False

    @property
    def connected(self) -> bool:
        return not self._lost

    def tell_waiting(self, error: HyperbusError) -> None:
        """Say why the process does not start, once."""
        if not self._waits:
            self._log.warning("the server cannot serve: this process waits for it", reason=str(error))
        self._waits = True

    def tell_ready(self) -> None:
        """Take note that every worker reads."""
        self.ready = True
        if self._waits:
            self._log.info("the server serves again: this process has started")

    def alive(self, oldest_running: Seconds | None) -> Alive:
        """Return the report that the process lives."""
        return Alive(
            connected=self.connected,
            workers=tuple(self.workers),
            rss=own_rss(),
            deliveries=self.deliveries,
            oldest_running=oldest_running,
            alone=self.alone,
            failing=tuple(sorted(self._failing)),
        )

    def take(self, announced: Signal) -> bool:
        """Take note of a signal; return whether it has to be reported at once."""
        if isinstance(announced, Handled):
            for counts in (announced.acked, announced.retried, announced.dead_lettered):
                self.deliveries += sum(counts.values())
        elif isinstance(announced, ConnectionChanged):
            # Readers and heartbeats always ask. A publisher knows only at its next publish that the server is back, and
            # a stream that is left alone says nothing about the server.
            if announced.kind in {"reader", "heartbeat"}:
                (self._lost.discard if announced.connected else self._lost.add)(announced.part)
        elif isinstance(announced, BackgroundChanged):
            (self._failing.discard if announced.running else self._failing.add)(announced.part)
            return True
        elif isinstance(announced, SuspectRuns):
            self.alone = announced.alone
            return True  # before it runs: if the process dies now, the entry is to blame
        elif isinstance(announced, WorkerChanged):
            (self.workers.discard if announced.state == "stopped" else self.workers.add)(announced.consumer)
            if announced.state == "cut off":
                self.late.add(announced.group)
            return True  # its first entry may kill the process: whose heartbeat that leaves has to be known before
        return False


@asynccontextmanager
async def _telling(tell: Callable[[], None], interval: Seconds) -> AsyncGenerator[None]:
    """Report again and again for as long as the context lasts: consumers may take long to start, and to stop."""

    async def keep_telling() -> None:
        while True:
            tell()
            await asyncio.sleep(interval)

    background = BackgroundTasks()
    background.start(keep_telling, "reports")
    try:
        yield
    finally:
        await background.stop()


def _reporter(descriptor: int) -> Callable[[Report], None]:
    os.set_blocking(descriptor, False)
    os.set_inheritable(descriptor, False)
    encode = msgspec.json.Encoder().encode

    def report(what: Report) -> None:
        with suppress(BlockingIOError, BrokenPipeError):  # nobody listens; the end of standard input says so too
            os.write(descriptor, encode(what) + b"\n")

    return report


def _report_failure(report: Callable[[Report], None], error: Exception, exit_code: int) -> None:
    report(Failed(message=str(error)[:_MESSAGE_LIMIT], exit_code=exit_code, server_at_fault=is_server_at_fault(error)))


def _read_end(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    """Stop when standard input ends: the supervisor is gone."""
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin.fileno())
        if not stopped.is_set():
            get_logger("hyperbus.supervisor").warning("the supervisor is gone: draining")
            stopped.set()


if __name__ == "__main__":
    sys.exit(main())
