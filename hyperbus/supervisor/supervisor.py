"""Keeps worker processes running: starts, watches, replaces, stops them. Handles no event itself."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import msgspec
import structlog

from hyperbus.bus import Bus
from hyperbus.clock import Clock, Seconds, SystemClock
from hyperbus.errors import DrainTimeoutError, HyperbusError, InvalidSettingError, PortInUseError
from hyperbus.settings import DEFAULT_URL, Settings
from hyperbus.supervisor.limit_enforcer import Guard
from hyperbus.supervisor.limits import Limits
from hyperbus.supervisor.messages import Inspected, Orders
from hyperbus.supervisor.metrics_folder import MetricsFolder
from hyperbus.supervisor.process import WorkerProcess
from hyperbus.supervisor.slot import Slot, stop_process
from hyperbus.supervisor.status import StatusPages
from hyperbus.supervisor.temporary_folder import remove_abandoned, temporary_folder
from hyperbus.supervisor.waiting import until_first
from hyperbus.supervisor.worker_process.event_loop import chosen_loop
from hyperbus.transport import record_names

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
    5. On SIGHUP replaces the processes one by one; one that is over a limit too. There is one more of them meanwhile.
    6. Says at once that a dead process's workers are dead, so that nobody waits for their heartbeats to run out.
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
        self._slots = [Slot(self) for _ in range(processes)]
        self._started: list[WorkerProcess] = []
        self.stopping = asyncio.Event()
        self.killing = asyncio.Event()
        self._reloading = asyncio.Event()
        self._one_by_one = asyncio.Lock()
        self.was_ready = False
        self._error: HyperbusError | None = None
        self._late = 0
        self._descriptors: tuple[int, ...] = ()
        self._environment: dict[str, str] = {}
        self._metrics: MetricsFolder | None = None
        self._bus: Bus | None = None
        self._log = structlog.get_logger("hyperbus.supervisor")
        self.ready = asyncio.Event()
        self.http_port: int | None = None
        self.websocket_port: int | None = None

    @property
    def processes(self) -> list[WorkerProcess]:
        """The processes that run now, oldest first: those that are to take a place or have left one too."""
        return [process for process in self._started if not process.ended.done()]

    @property
    def serving(self) -> list[WorkerProcess]:
        """The processes that have a place and are not being replaced."""
        return [slot.current for slot in self._slots if slot.current is not None]

    def stop(self) -> None:
        """Let every process drain; called again, kill them."""
        if self.stopping.is_set():
            self.killing.set()
        self.stopping.set()

    def reload(self) -> None:
        """Replace the processes one by one, with the code as it is now: each new one is ready before the old drains."""
        self._reloading.set()

    async def run(self) -> None:
        """Run until stopped.

        Raises:
            HyperbusError: the consumers, the server or a port cannot be used; `exit_code` says which.
            CrashLoopError: processes kept dying.
            DrainTimeoutError: some had to be killed at the end.
        """
        loop = chosen_loop(self.settings.loop)
        try:
            async with AsyncExitStack() as stack:
                await asyncio.to_thread(remove_abandoned)
                folder, lock = stack.enter_context(temporary_folder())
                self._metrics = MetricsFolder(folder)
                self._environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
                self._descriptors = (lock,)  # orphans keep their folder
                inspected = await self._inspect()
                if self.stopping.is_set():
                    return
                if inspected.needs_websocket:
                    self._bind_websocket(stack)
                self._bus = await stack.enter_async_context(Bus(settings=self.settings))
                pages = StatusPages(self, self._bus, self._metrics, self._count, hung_after=self.settings.hung_after)
                await stack.enter_async_context(pages.serving(self.settings.host, self.settings.http_port))
                self.http_port = pages.port
                self._log.info(
                    "supervising",
                    consumers=len(inspected.consumers),
                    processes=self._count,
                    loop=loop,
                    server=self._bus.transport.description,
                    metrics=f"http://{self.settings.host}:{pages.port}/metrics",
                    **(
                        {"websocket": f"ws://{self.settings.host}:{self.websocket_port}"} if self.websocket_port else {}
                    ),
                )
                await self._keep_all()
        finally:
            await self._end_all()
        if self._error is not None:
            raise self._error
        if self._late:
            raise DrainTimeoutError(f"{self._late} of {self._count} processes did not finish in time; see their log")

    # -- before anything runs

    async def _inspect(self) -> Inspected:
        orders = msgspec.structs.replace(self._orders, only_inspect=True)
        process = await self._launch(orders)
        await until_first(process.ended, self.stopping)
        code = await self.see_out(process)
        if process.inspected is None:
            if self.stopping.is_set():
                return Inspected(consumers=(), needs_websocket=False)
            if process.failed is not None:
                raise process.failed.as_error()
            raise HyperbusError(f"the modules could not be loaded (exit code {code}); see above")
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
        self._descriptors += (listening.fileno(),)
        self._environment[WEBSOCKET_FD] = str(listening.fileno())

    # -- all the processes

    async def _keep_all(self) -> None:
        guard = Guard(Limits.of(self.settings), lambda: self.processes, self._replace)
        async with asyncio.TaskGroup() as tasks:
            for number, slot in enumerate(self._slots):
                tasks.create_task(self._keep_or_stop(slot), name=f"hyperbus slot {number}")
            tasks.create_task(self._roll_when_told(), name="hyperbus roll")
            tasks.create_task(guard.run(self.stopping), name="hyperbus guard")

    async def _keep_or_stop(self, slot: Slot) -> None:
        """Keep a slot; when that is given up, let the others drain."""
        try:
            await slot.keep()
        except HyperbusError as error:
            self._error = self._error or error
            self.stopping.set()

    async def _roll_when_told(self) -> None:
        await until_first(self.ready, self.stopping)
        while not self.stopping.is_set():
            await until_first(self._reloading, self.stopping)
            if not self.stopping.is_set():
                self._reloading.clear()
                await self._roll()

    async def _roll(self) -> None:
        self._log.info("replacing the worker processes one by one", processes=self._count)
        for slot in self._slots:
            async with self._one_by_one:
                replaced = await slot.replace()
            if self.stopping.is_set():
                return
            if not replaced:
                self._log.error("the other worker processes are not replaced; mend what is wrong and send SIGHUP again")
                return
        self._log.info("every worker process was replaced", pids=[process.pid for process in self.serving])

    async def _replace(self, process: WorkerProcess) -> bool:
        """Put a new process in the place of one, if that still has one."""
        async with self._one_by_one:
            for slot in self._slots:
                if slot.current is process and not self.stopping.is_set():
                    return await slot.replace()
        return True

    async def _end_all(self) -> None:
        """Leave nothing behind, however `run` was left."""
        for process in self.processes:
            process.send(signal.SIGKILL)
            await process.wait()

    # -- what slots ask for

    async def launch(self) -> WorkerProcess:
        """Start a process that works."""
        return await self._launch(self._orders)

    async def see_out(self, process: WorkerProcess) -> int:
        """Let a process drain, or end it when it does not; clear up after it; return its exit code."""
        code = await stop_process(process, killing=self.killing, within=self.settings.drain_timeout + GRACE)
        await self.bury(process)
        return code

    async def bury(self, process: WorkerProcess) -> None:
        """Let nobody wait for the heartbeats of workers that are known to be dead, and keep what they counted."""
        if process in self._started:
            self._started.remove(process)
        if process.workers and self._bus is not None:
            with suppress(HyperbusError):  # failing leaves them to end by themselves
                await self._bus.transport.records.delete([record_names.heartbeat(worker) for worker in process.workers])
        if self._metrics is not None:
            await self._metrics.fold(process.pid)

    def note_ready(self) -> None:
        """Hear that a process is ready."""
        self.was_ready = True
        if len(self.serving) == self._count and all(process.ready.is_set() for process in self.serving):
            self.ready.set()

    def note_end(self, code: int) -> None:
        """Hear how a process ended that was told to; SIGTERM ends one that had not begun to work."""
        self._late += code not in (0, -signal.SIGTERM)

    async def _launch(self, orders: Orders) -> WorkerProcess:
        try:
            process = await WorkerProcess.start(
                orders, self._clock, environment=self._environment, descriptors=self._descriptors
            )
        except OSError as error:
            raise HyperbusError(f"a worker process cannot be started: {error}; see the limits of the system") from error
        self._started.append(process)
        return process


async def run_until_signalled(supervisor: Supervisor, *, ready: Callable[[], None] | None = None) -> None:
    """Run a supervisor. SIGTERM and SIGINT stop it, a second one at once; SIGHUP replaces its processes one by one.

    The SIGHUP of a terminal that has gone stops it: nobody asked for a program that goes on unseen. `ready` is called
    when all processes are.
    """
    loop = asyncio.get_running_loop()
    on_terminal = os.isatty(0)

    def hang_up() -> None:
        if on_terminal and not os.isatty(0):
            supervisor.stop()
        else:
            supervisor.reload()

    answers = {signal.SIGTERM: supervisor.stop, signal.SIGINT: supervisor.stop, signal.SIGHUP: hang_up}
    for number, answer in answers.items():
        loop.add_signal_handler(number, answer)
    telling = asyncio.create_task(_tell(supervisor, ready)) if ready is not None else None
    try:
        await supervisor.run()
    finally:
        for number in answers:
            loop.remove_signal_handler(number)
        if telling is not None:
            telling.cancel()


async def _tell(supervisor: Supervisor, ready: Callable[[], None]) -> None:
    await supervisor.ready.wait()
    ready()
