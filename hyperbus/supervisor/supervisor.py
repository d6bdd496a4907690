"""Keeps worker processes running: starts, watches, restarts, stops them. Handles no event itself."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import msgspec
import structlog

from hyperbus.bus import Bus
from hyperbus.clock import Clock, Seconds, SystemClock
from hyperbus.errors import (
    BusUnavailable,
    CrashLoopError,
    DrainTimeoutError,
    HyperbusError,
    InvalidSettingError,
    PortInUseError,
)
from hyperbus.runtime.heartbeat import heartbeat_name
from hyperbus.settings import DEFAULT_URL, Settings
from hyperbus.supervisor.messages import Inspected, Orders
from hyperbus.supervisor.process import WorkerProcess
from hyperbus.supervisor.restart_policy import RestartState
from hyperbus.supervisor.status import StatusPages

#: Processes of one supervisor, at most.
MOST_PROCESSES = 256
#: What a process gets beyond its drain time, before it is killed.
GRACE: Seconds = 3.0
#: The environment variable that passes the WebSocket port's descriptor on.
WEBSOCKET_FD = "HYPERBUS_WEBSOCKET_FD"


class Supervisor:
    """Runs the consumers of some modules in several processes.

    1. Looks at the modules in a process of its own, so that a mistake is told once, and before anything runs.
    2. Binds the ports once; every process answers on the same WebSocket port.
    3. Restarts a process that dies, with backoff; one that keeps dying is a crash loop, and ends everything.
    4. On SIGTERM or SIGINT lets every process drain; on a second one kills them.
    5. Says at once that a dead process's workers are dead, so that nobody waits for their heartbeats to run out.
    """

    def __init__(
        self,
        modules: Sequence[str],
        settings: Settings,
        *,
        processes: int = 1,
        folder: Path | None = None,
        json_logs: bool | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not 1 <= processes <= MOST_PROCESSES:
            raise InvalidSettingError(f"--processes {processes} has to lie between 1 and {MOST_PROCESSES}")
        self.settings = settings if settings.url else msgspec.structs.replace(settings, url=DEFAULT_URL)
        self._orders = Orders(
            modules=tuple(modules), folder=str(folder or Path.cwd()), settings=self.settings, json_logs=json_logs
        )
        self._count = processes
        self._clock: Clock = clock or SystemClock()
        self._processes: dict[int, WorkerProcess] = {}
        self._stopping = asyncio.Event()
        self._killing = asyncio.Event()
        self._reloading = asyncio.Event()
        self._was_ready = False
        self._error: HyperbusError | None = None
        self._late = 0
        self._descriptors: tuple[int, ...] = ()
        self._environment: dict[str, str] = {}
        self._log = structlog.get_logger("hyperbus.supervisor")
        self.ready = asyncio.Event()
        self.http_port: int | None = None
        self.websocket_port: int | None = None

    @property
    def processes(self) -> list[WorkerProcess]:
        """The processes that run now."""
        return list(self._processes.values())

    def stop(self) -> None:
        """Let every process drain; called again, kill them."""
        if self._stopping.is_set():
            self._killing.set()
        self._stopping.set()

    def reload(self) -> None:
        """Let every process drain and start again, with the code as it is now."""
        reloading, self._reloading = self._reloading, asyncio.Event()
        reloading.set()

    async def run(self) -> None:
        """Run until stopped.

        Raises:
            HyperbusError: the consumers, the server or a port cannot be used; `exit_code` says which.
            CrashLoopError: processes kept dying.
            DrainTimeoutError: some had to be killed at the end.
        """
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hyperbus-metrics-"))
            self._environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder}
            inspected = await self._inspect()
            if self._stopping.is_set():
                return
            if inspected.needs_websocket:
                self._bind_websocket(stack)
            bus = await stack.enter_async_context(Bus(settings=self.settings))
            pages = StatusPages(self, bus, Path(folder), self._count)
            await stack.enter_async_context(pages.serving(self.settings.host, self.settings.http_port))
            self.http_port = pages.port
            self._log.info(
                "supervising",
                consumers=len(inspected.consumers),
                processes=self._count,
                server=bus.transport.description,
                metrics=f"http://{self.settings.host}:{pages.port}/metrics",
                **({"websocket": f"ws://{self.settings.host}:{self.websocket_port}"} if self.websocket_port else {}),
            )
            async with asyncio.TaskGroup() as slots:
                for slot in range(self._count):
                    slots.create_task(self._keep_or_stop(slot, bus), name=f"hyperbus slot {slot}")
        if self._error is not None:
            raise self._error
        if self._late:
            raise DrainTimeoutError(f"{self._late} of {self._count} processes did not finish in time; see their log")

    # -- before anything runs

    async def _inspect(self) -> Inspected:
        orders = msgspec.structs.replace(self._orders, only_inspect=True)
        process = await WorkerProcess.start(orders, self._clock, environment=self._environment)
        code = await self._watch(process, asyncio.Event())
        if process.inspected is None:
            if self._stopping.is_set():
                return Inspected(consumers=(), needs_websocket=False)
            raise _error_of(process, f"the modules could not be loaded (exit code {code}); see above")
        return process.inspected

    def _bind_websocket(self, stack: AsyncExitStack) -> None:
        host, port = self.settings.host, self.settings.websocket_port
        try:
            listening = socket.create_server((host, port), backlog=128, reuse_port=False)
        except OSError as error:
            raise PortInUseError(
                f"cannot listen for WebSocket clients on {host}:{port}: {error.strerror or error}; "
                f"say --websocket-port 0 for a free one"
            ) from error
        stack.callback(listening.close)
        self.websocket_port = listening.getsockname()[1]
        self._descriptors = (listening.fileno(),)
        self._environment[WEBSOCKET_FD] = str(listening.fileno())

    # -- one slot

    async def _keep_or_stop(self, slot: int, bus: Bus) -> None:
        """Keep a slot; when that is given up, let the others drain."""
        try:
            await self._keep(slot, bus)
        except HyperbusError as error:
            self._error = self._error or error
            self._stopping.set()

    async def _keep(self, slot: int, bus: Bus) -> None:
        """Keep a process running in a slot until everything stops."""
        state = RestartState()
        while not self._stopping.is_set():
            reloading = self._reloading  # each request has an event of its own: the next process waits for the next
            process = await WorkerProcess.start(
                self._orders, self._clock, environment=self._environment, descriptors=self._descriptors
            )
            self._processes[slot] = process
            try:
                code = await self._watch(process, reloading)
            finally:
                del self._processes[slot]
            await self._bury(process, bus)
            if self._stopping.is_set():
                self._late += code not in (0, -signal.SIGTERM)  # SIGTERM ends one that had not begun to work
                return
            if reloading.is_set():
                continue
            if process.failed is not None and not self._was_ready:
                raise _error_of(process, "")
            blameless = process.failed is not None and process.failed.exit_code == BusUnavailable.exit_code
            state = state.after_death(process.lived, blameless=blameless)
            if state.is_crash_loop:
                raise CrashLoopError(
                    f"a worker process died {state.deaths} times in a row (last exit code {code}); see its log"
                )
            reason = process.failed.message if process.failed else _how(code)
            self._log.warning("worker process died", pid=process.pid, reason=reason, restart_in=state.pause)
            await self._pause(state.pause * random.uniform(0.9, 1.1))  # noqa: S311 - jitter

    async def _watch(self, process: WorkerProcess, reload: asyncio.Event) -> int:
        """Wait for a process's end; when everything stops, or reloads, bring it about. Return its exit code."""
        ended = asyncio.create_task(process.wait(), name=f"hyperbus end of {process.pid}")
        readying = asyncio.create_task(process.ready.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        reloading = asyncio.create_task(reload.wait())
        try:
            await asyncio.wait((ended, readying, stopping, reloading), return_when=asyncio.FIRST_COMPLETED)
            if readying.done():
                self._note_ready()
                await asyncio.wait((ended, stopping, reloading), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                process.send(signal.SIGTERM)
                await self._end_by(ended, process)
            return await ended
        finally:
            for task in (readying, stopping, reloading):
                task.cancel()
            if not ended.done():  # cancelled from outside: nothing may outlive its supervisor
                process.send(signal.SIGKILL)
                await ended

    async def _end_by(self, ended: asyncio.Task[int], process: WorkerProcess) -> None:
        killing = asyncio.create_task(self._killing.wait())
        try:
            await asyncio.wait(
                (ended, killing), timeout=self.settings.drain_timeout + GRACE, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            killing.cancel()
        if not ended.done():
            self._log.warning("worker process killed: it did not drain in time", pid=process.pid)
            process.send(signal.SIGKILL)

    async def _bury(self, process: WorkerProcess, bus: Bus) -> None:
        """Let nobody wait for the heartbeats of workers that are known to be dead."""
        if process.workers:
            with suppress(HyperbusError):  # failing leaves them to end by themselves
                await bus.transport.records.delete([heartbeat_name(worker) for worker in process.workers])

    def _note_ready(self) -> None:
        self._was_ready = True
        if len(self._processes) == self._count and all(p.ready.is_set() for p in self._processes.values()):
            self.ready.set()

    async def _pause(self, seconds: Seconds) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _error_of(process: WorkerProcess, otherwise: str) -> HyperbusError:
    """Return the error that a process reported, with its exit code."""
    if process.failed is None:
        return HyperbusError(otherwise)
    error = HyperbusError(process.failed.message)
    error.exit_code = process.failed.exit_code
    return error


async def run_until_signalled(supervisor: Supervisor, *, ready: Callable[[], None] | None = None) -> None:
    """Run a supervisor; SIGTERM and SIGINT stop it, a second one at once. `ready` is called when all processes are."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, supervisor.stop)
    telling = asyncio.create_task(_tell(supervisor, ready)) if ready is not None else None
    try:
        await supervisor.run()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
        if telling is not None:
            telling.cancel()


async def _tell(supervisor: Supervisor, ready: Callable[[], None]) -> None:
    await supervisor.ready.wait()
    ready()
