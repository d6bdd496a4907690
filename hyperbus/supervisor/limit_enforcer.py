"""Looks after the limits of worker processes: has them replaced, kills them, says which ones hang."""

from __future__ import annotations

import asyncio

from hyperbus.clock import Seconds
from hyperbus.logger import get_logger
from hyperbus.supervisor.launcher import ProcessLauncher
from hyperbus.supervisor.limits import Limits
from hyperbus.supervisor.process import WorkerProcess
from hyperbus.supervisor.rollout import Rollout
from hyperbus.supervisor.run_state import RunState
from hyperbus.supervisor.waiting import until_first

#: How often processes are looked at. Twice as often as they report: what one holds is read from outside.
LOOK_INTERVAL: Seconds = 0.25
#: After this long a replacement that failed is tried again.
REPLACE_AGAIN: Seconds = 30.0


class LimitEnforcer:
    """Looks at every process until stopped.

    Args:
        limits: what they may have, do and take.
        launcher: knows those that run now.
        rollout: puts a new process in the place of one.
        state: whether everything stops.
    """

    def __init__(self, limits: Limits, launcher: ProcessLauncher, rollout: Rollout, state: RunState) -> None:
        self._limits = limits
        self._launcher = launcher
        self._rollout = rollout
        self._stopping = state.stopping
        self._hung: set[WorkerProcess] = set()
        self._replacing: dict[WorkerProcess, asyncio.Task[None]] = {}
        self._log = get_logger("hyperbus.supervisor")

    async def run(self) -> None:
        """Look until stopped; replacements that have begun are seen to their end."""
        async with asyncio.TaskGroup() as tasks:
            while not self._stopping.is_set():
                self._look(tasks)
                await until_first(self._stopping, within=LOOK_INTERVAL)

    def _look(self, tasks: asyncio.TaskGroup) -> None:
        processes = self._launcher.processes
        self._hung &= set(processes)
        for process in processes:
            seen = process.vitals
            self._note_hung(process, hung=self._limits.is_hung(seen), silent=seen.silent)
            verdict = self._limits.judge(seen)
            if verdict is None:
                continue
            if verdict.do == "kill":
                if process.killed_because is None:
                    self._log.error("worker process killed", pid=process.pid, reason=verdict.reason)
                    process.kill(verdict.reason)
            elif process not in self._replacing:
                self._log.warning("worker process is replaced", pid=process.pid, reason=verdict.reason)
                self._replacing[process] = tasks.create_task(self._have_replaced(process))

    def _note_hung(self, process: WorkerProcess, *, hung: bool, silent: Seconds) -> None:
        if hung and process not in self._hung:
            self._hung.add(process)
            self._log.error(
                "worker process hangs: its event loop does not turn; a handler blocks it, or the process is stopped. "
                "Set max_handler_seconds to have such processes killed",
                pid=process.pid,
                silent_seconds=round(silent, 1),
            )
        elif not hung and process in self._hung:
            self._hung.discard(process)
            self._log.warning("worker process goes on", pid=process.pid)

    async def _have_replaced(self, process: WorkerProcess) -> None:
        """Have it replaced. The entry stays for as long as it is not to be tried again."""
        try:
            if not await self._rollout.replace(process):
                await until_first(process.ended, self._stopping, within=REPLACE_AGAIN)
        finally:
            del self._replacing[process]
