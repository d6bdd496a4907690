"""Keeps worker processes running: starts, watches, replaces, stops them. Handles no event itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec

from hyperbus.background import keep_running
from hyperbus.bus import Bus
from hyperbus.clock import Clock, Seconds, SystemClock
from hyperbus.errors import DrainTimeoutError, HyperbusError, InvalidSettingError
from hyperbus.logger import get_logger
from hyperbus.process_signals import ProcessSignals
from hyperbus.settings import DEFAULT_URL, Settings
from hyperbus.supervisor.launcher import ProcessLauncher
from hyperbus.supervisor.limit_enforcer import LimitEnforcer
from hyperbus.supervisor.limits import Limits
from hyperbus.supervisor.messages import Inspected, Orders
from hyperbus.supervisor.metrics_folder import MetricsFolder
from hyperbus.supervisor.port import in_url, listen
from hyperbus.supervisor.process import WorkerProcess
from hyperbus.supervisor.restart_policy import RestartPolicy
from hyperbus.supervisor.rollout import Rollout
from hyperbus.supervisor.run_state import RunState
from hyperbus.supervisor.slot import Slot
from hyperbus.supervisor.status import StatusPages
from hyperbus.supervisor.temporary_folder import remove_abandoned, temporary_folder
from hyperbus.supervisor.waiting import until_first
from hyperbus.supervisor.worker_process.event_loop import chosen_loop
from hyperbus.transport import Records

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
        limits: Limits | None = None,
        restart_policy: RestartPolicy | None = None,
        grace: Seconds = GRACE,
    ) -> None:
        if not 1 <= processes <= MOST_PROCESSES:
            raise InvalidSettingError(f"--processes {processes} has to lie between 1 and {MOST_PROCESSES}")
        self.settings = settings if settings.url else msgspec.structs.replace(settings, url=DEFAULT_URL)
        self._orders = Orders(modules=tuple(modules), folder=str(folder or Path.cwd()), settings=self.settings)
        _check_text(self._orders)
        self._count = processes
        self._limits = limits or Limits.of(settings)
        self._restart_policy = restart_policy or RestartPolicy()
        self._grace = grace
        self._clock: Clock = SystemClock()
        self._state = RunState()
        self._reloading = asyncio.Event()
        self._launchers: list[ProcessLauncher] = []
        self._slots: list[Slot] = []
        self._error: HyperbusError | None = None
        self._log = get_logger("hyperbus.supervisor")
        self.ready = asyncio.Event()
        self.http_port: int | None = None
        self.websocket_port: int | None = None

    @property
    def processes(self) -> list[WorkerProcess]:
        """The processes that run now, oldest first: those that are to take a place or have left one too."""
        return [process for launcher in self._launchers for process in launcher.processes]

    @property
    def serving(self) -> list[WorkerProcess]:
        """The processes that have a place and are not being replaced."""
        return [slot.current for slot in self._slots if slot.current is not None]

    def stop(self) -> None:
        """Let every process drain; called again, kill them."""
        self._state.stop()

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
                await self._run(stack, loop)
        finally:
            for launcher in self._launchers:  # nothing is left behind, however this was left
                await launcher.end_all()
        if self._error is not None:
            raise self._error
        if self._state.late:
            raise DrainTimeoutError(
                f"{self._state.late} of {self._count} processes did not finish in time; see their log"
            )

    async def _run(self, stack: AsyncExitStack, loop: str) -> None:
        await asyncio.to_thread(remove_abandoned)
        folder, lock = stack.enter_context(temporary_folder())
        metrics = MetricsFolder(folder)
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
        descriptors = [lock]  # orphans keep their folder
        inspected = await self._inspect(environment, descriptors, metrics)
        if self._state.stopping.is_set():
            return
        if inspected.needs_websocket:
            descriptor = self._bind_websocket(stack)
            descriptors.append(descriptor)
            environment[WEBSOCKET_FD] = str(descriptor)
        bus = await stack.enter_async_context(Bus(settings=self.settings))
        launcher = self._new_launcher(self._orders, environment, descriptors, metrics, bus.transport.records)
        self._slots = [Slot(launcher, self._state, self._restart_policy) for _ in range(self._count)]
        pages = StatusPages(launcher, self._slots, bus, metrics, hung_after=self.settings.hung_after)
        await stack.enter_async_context(pages.serving(self.settings.host, self.settings.http_port))
        self.http_port, host = pages.port, in_url(self.settings.host)
        self._log.info(
            "supervising",
            consumers=len(inspected.consumers),
            processes=self._count,
            loop=loop,
            server=bus.transport.description,
            metrics=f"http://{host}:{pages.port}/metrics",
            **({"websocket": f"ws://{host}:{self.websocket_port}"} if self.websocket_port else {}),
        )
        await self._keep_all(launcher)

    # -- before anything runs

    async def _inspect(self, environment: dict[str, str], descriptors: list[int], metrics: MetricsFolder) -> Inspected:
        orders = msgspec.structs.replace(self._orders, only_inspect=True)
        launcher = self._new_launcher(orders, environment, descriptors, metrics, None)
        process = await launcher.launch()
        await until_first(process.ended, self._state.stopping)
        code = await launcher.see_out(process)
        if process.inspected is None:
            if self._state.stopping.is_set():
                return Inspected(consumers=(), needs_websocket=False)
            if process.failed is not None:
                raise process.failed.as_error()
            raise HyperbusError(f"the modules could not be loaded (exit code {code}); see above")
        return process.inspected

    def _bind_websocket(self, stack: AsyncExitStack) -> int:
        """Listen for WebSocket clients; return the socket's descriptor."""
        listening = listen(self.settings.host, self.settings.websocket_port)
        stack.callback(listening.close)
        self.websocket_port = listening.getsockname()[1]
        return listening.fileno()

    def _new_launcher(
        self,
        orders: Orders,
        environment: dict[str, str],
        descriptors: list[int],
        metrics: MetricsFolder,
        records: Records | None,
    ) -> ProcessLauncher:
        launcher = ProcessLauncher(
            orders,
            self._clock,
            self._state,
            environment=environment,
            descriptors=tuple(descriptors),
            end_within=self.settings.drain_timeout + self._grace,
            metrics=metrics,
            records=records,
        )
        self._launchers.append(launcher)
        return launcher

    # -- all the processes

    async def _keep_all(self, launcher: ProcessLauncher) -> None:
        rollout = Rollout(self._slots, self._state)
        enforcer = LimitEnforcer(self._limits, launcher, rollout, self._state)
        async with asyncio.TaskGroup() as tasks:
            for number, slot in enumerate(self._slots):
                tasks.create_task(self._keep_or_stop(slot), name=f"hyperbus slot {number}")
            tasks.create_task(self._tell_ready(), name="hyperbus ready")
            tasks.create_task(keep_running(partial(self._roll_when_told, rollout), "rollout"), name="hyperbus roll")
            tasks.create_task(keep_running(enforcer.run, "limits"), name="hyperbus limits")

    async def _keep_or_stop(self, slot: Slot) -> None:
        """Keep a slot; when that is given up, let the others drain."""
        try:
            await slot.keep()
        except HyperbusError as error:
            self._error = self._error or error
            self._state.stopping.set()

    async def _tell_ready(self) -> None:
        """Be ready once every slot is, at one time."""
        state = self._state
        while not (self.ready.is_set() or state.stopping.is_set()):
            await until_first(state.became_ready, state.stopping)
            state.became_ready.clear()
            if all(slot.is_ready for slot in self._slots):
                self.ready.set()

    async def _roll_when_told(self, rollout: Rollout) -> None:
        stopping = self._state.stopping
        await until_first(self.ready, stopping)
        while not stopping.is_set():
            await until_first(self._reloading, stopping)
            if not stopping.is_set():
                self._reloading.clear()
                await rollout.replace_all()


def _check_text(orders: Orders) -> None:
    """Check that orders can be written down for a process.

    Raises:
        InvalidSettingError: a name, a folder or a setting holds bytes that are no text.
    """
    try:
        msgspec.json.encode(orders)
    except UnicodeEncodeError as error:
        raise InvalidSettingError(f"{error.object!a} holds bytes that are no UTF-8") from None


async def run_until_signalled(supervisor: Supervisor, *, ready: Callable[[], None] | None = None) -> None:
    """Run a supervisor. SIGTERM and SIGINT stop it, a second one at once; SIGHUP replaces its processes one by one.

    The SIGHUP of a terminal that has gone stops it: nobody asked for a program that goes on unseen. `ready` is called
    when all processes are.
    """
    on_terminal = os.isatty(0)

    def hang_up() -> None:
        if on_terminal and not os.isatty(0):
            supervisor.stop()
        else:
            supervisor.reload()

    answers = {signal.SIGTERM: supervisor.stop, signal.SIGINT: supervisor.stop, signal.SIGHUP: hang_up}
    with ProcessSignals(answers):
        telling = asyncio.create_task(_tell(supervisor, ready)) if ready is not None else None
        try:
            await supervisor.run()
        finally:
            if telling is not None:
                telling.cancel()


async def _tell(supervisor: Supervisor, ready: Callable[[], None]) -> None:
    await supervisor.ready.wait()
    ready()
