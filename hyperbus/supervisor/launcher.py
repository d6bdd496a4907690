"""Starts worker processes, lets them drain, and clears up after them."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import HyperbusError
from hyperbus.logger import get_logger
from hyperbus.supervisor.messages import Orders
from hyperbus.supervisor.metrics_folder import MetricsFolder
from hyperbus.supervisor.process import WorkerProcess
from hyperbus.supervisor.run_state import RunState
from hyperbus.supervisor.waiting import until_first
from hyperbus.transport import Records, record_names


class ProcessLauncher:
    """Starts processes with the same orders, and knows those that run.

    Args:
        orders: what they are to do.
        clock: what their lives are measured by.
        state: whether everything stops.
        environment: their environment variables.
        descriptors: files that stay open in them.
        end_within: how long one may take to end before it is killed.
        metrics: where they count.
        records: where their heartbeats are; None for processes that run no worker.
    """

    def __init__(
        self,
        orders: Orders,
        clock: Clock,
        state: RunState,
        *,
        environment: Mapping[str, str],
        descriptors: Sequence[int],
        end_within: Seconds,
        metrics: MetricsFolder,
        records: Records | None = None,
    ) -> None:
        self._orders = orders
        self._clock = clock
        self._state = state
        self._environment = environment
        self._descriptors = descriptors
        self._end_within = end_within
        self._metrics = metrics
        self._records = records
        self._started: list[WorkerProcess] = []
        self._log = get_logger("hyperbus.supervisor")

    @property
    def processes(self) -> list[WorkerProcess]:
        """The processes that run now, oldest first: those that are to take a place or have left one too."""
        return [process for process in self._started if not process.ended.done()]

    async def launch(self) -> WorkerProcess:
        """Start a process. Once one was ready, others wait for a server that cannot serve: it is no mistake of theirs.

        Raises:
            HyperbusError: the system has no room for it.
        """
        orders = msgspec.structs.replace(self._orders, wait_for_server=self._state.was_ready)
        try:
            process = await WorkerProcess.start(
                orders, self._clock, environment=self._environment, descriptors=self._descriptors
            )
        except OSError as error:
            raise HyperbusError(f"a worker process cannot be started: {error}; see the limits of the system") from error
        self._started.append(process)
        return process

    async def see_out(self, process: WorkerProcess) -> int:
        """Let a process drain, or kill it when it does not; clear up after it; return its exit code."""
        if not process.ended.done():
            process.send(signal.SIGTERM)
            await until_first(process.ended, self._state.killing, within=self._end_within)
        if not process.ended.done():
            self._log.warning("worker process killed: it did not drain in time", pid=process.pid)
            process.send(signal.SIGKILL)
        code = await process.wait()
        await self.clear_up(process)
        return code

    async def clear_up(self, process: WorkerProcess) -> None:
        """Let nobody wait for the heartbeats of workers that are known to be dead, and keep what they counted."""
        if process in self._started:
            self._started.remove(process)
        if process.workers and self._records is not None:
            with suppress(HyperbusError):  # failing leaves them to end by themselves
                await self._records.delete([record_names.heartbeat(worker) for worker in process.workers])
        await self._metrics.fold(process.pid)

    async def end_all(self) -> None:
        """Leave no process behind."""
        for process in self.processes:
            process.send(signal.SIGKILL)
            await process.wait()
