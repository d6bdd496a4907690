"""Looks after the limits of worker processes: has them replaced, kills them, says which ones hang."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from hyperbus.clock import Seconds
from hyperbus.supervisor.limits import Limits
from hyperbus.supervisor.process import WorkerProcess
from hyperbus.supervisor.waiting import until_first

#: How often processes are looked at. Twice as often as they report: what one holds is read from outside.
LOOK_INTERVAL: Seconds = 0.25
#: After this long a replacement that failed is tried again.
REPLACE_AGAIN: Seconds = 30.0


class Guard:
    """Looks at every process until stopped.

    Args:
        limits: what they may have, do and take.
        processes: returns those that run now.
        replace: puts a new process in the place of one; returns False when that failed.
    """

    def __init__(
        self,
        limits: Limits,
        processes: Callable[[], Sequence[WorkerProcess]],
        replace: Callable[[WorkerProcess], Awaitable[bool]],
    ) -> None:
        self._limits = limits
        self._processes = processes
        self._replace = replace
        self._hung: set[WorkerProcess] = set()
        self._replacing: dict[WorkerProcess, asyncio.Task[None]] = {}
        self._log = structlog.get_logger("hyperbus.supervisor")

    async def run(self, stopping: asyncio.Event) -> None:
        """Look until stopped; replacements that have begun are seen to their end."""
        async with asyncio.TaskGroup() as tasks:
            while not stopping.is_set():
                self._look(tasks, stopping)
                await until_first(stopping, within=LOOK_INTERVAL)

    def _look(self, tasks: asyncio.TaskGroup, stopping: asyncio.Event) -> None:
        processes = [process for process in self._processes() if not process.ended.done()]
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
                self._replacing[process] = tasks.create_task(self._have_replaced(process, stopping))

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

    async def _have_replaced(self, process: WorkerProcess, stopping: asyncio.Event) -> None:
        """Have it replaced. The entry stays for as long as it is not to be tried again."""
        try:
            if not await self._replace(process):
                await until_first(process.ended, stopping, within=REPLACE_AGAIN)
        finally:
            del self._replacing[process]
