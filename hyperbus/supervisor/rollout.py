"""Replaces worker processes, one at a time: all of them by themselves, or one that is over a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hyperbus.logger import get_logger
from hyperbus.supervisor.process import WorkerProcess
from hyperbus.supervisor.run_state import RunState
from hyperbus.supervisor.slot import Slot


class Rollout:
    """Has slots replace their processes. There is never more than one new process beside the others."""

    def __init__(self, slots: Sequence[Slot], state: RunState) -> None:
        self._slots = slots
        self._state = state
        self._one_by_one = asyncio.Lock()
        self._log = get_logger("hyperbus.supervisor")

    async def replace_all(self) -> None:
        """Replace every process; a new one that cannot be had ends that, and the others stay."""
        self._log.info("replacing the worker processes one by one", processes=len(self._slots))
        for slot in self._slots:
            async with self._one_by_one:
                replaced = await slot.replace()
            if self._state.stopping.is_set():
                return
            if not replaced:
                self._log.error("the other worker processes are not replaced; mend what is wrong and send SIGHUP again")
                return
        pids = [slot.current.pid for slot in self._slots if slot.current is not None]
        self._log.info("every worker process was replaced", pids=pids)

    async def replace(self, process: WorkerProcess) -> bool:
        """Put a new process in the place of one, if that still has one; return False when that failed."""
        async with self._one_by_one:
            for slot in self._slots:
                if slot.current is process and not self._state.stopping.is_set():
                    return await slot.replace()
        return True
