"""One of a supervisor's places for a process: kept filled, and refilled without a gap when its process is replaced."""

from __future__ import annotations

import asyncio
import random

from hyperbus.clock import Seconds
from hyperbus.errors import CrashLoopError, HyperbusError
from hyperbus.logger import get_logger
from hyperbus.supervisor.launcher import ProcessLauncher
from hyperbus.supervisor.process import WorkerProcess
from hyperbus.supervisor.restart_policy import RestartPolicy, RestartState
from hyperbus.supervisor.run_state import RunState
from hyperbus.supervisor.waiting import until_first

#: How long a new process may take until it is ready to take the place of another.
READY_WITHIN: Seconds = 120.0
#: How long after the system had no room for a process it is asked again.
LAUNCH_AGAIN: Seconds = 1.0


class Slot:
    """Keeps one process running. Restarts one that dies, with backoff; replaces one on demand.

    While a process is replaced there are two: the new one is ready before the old one drains. When both the restart
    of a dead process and its replacement are under way, the one that is ready last takes the place of the other.
    """

    def __init__(self, launcher: ProcessLauncher, state: RunState, policy: RestartPolicy) -> None:
        self._launcher = launcher
        self._state = state
        self.current: WorkerProcess | None = None
        self._deaths = RestartState(policy)
        self._changing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._told_no_room = False
        self._log = get_logger("hyperbus.supervisor")

    @property
    def is_ready(self) -> bool:
        """Whether the process in this place is ready."""
        return self.current is not None and self.current.ready.is_set()

    async def keep(self) -> None:
        """Keep a process running until everything stops.

        Raises:
            HyperbusError: the first one of all could not start; it says why.
            CrashLoopError: it kept dying.
        """
        state = self._state
        while not state.stopping.is_set():
            process = await self._filled()
            if process is None:
                await until_first(state.stopping, self._changed, within=LAUNCH_AGAIN)
                continue
            await until_first(process.ended, process.ready, state.stopping, self._changed)
            if process.ready.is_set():
                state.note_ready()
                await until_first(process.ended, state.stopping, self._changed)
            if state.stopping.is_set() or self.current is not process:
                continue
            self.current = None
            await self._launcher.clear_up(process)
            if not state.stopping.is_set():
                self._note_death(process)
                pause = self._deaths.pause * random.uniform(0.9, 1.0)  # noqa: S311 - jitter
                await until_first(state.stopping, self._changed, within=pause)
        async with self._changing:
            last, self.current = self.current, None
        if last is not None:
            state.note_end(await self._launcher.see_out(last))

    async def replace(self) -> bool:
        """Put a new process in the place of the present one, which then drains; return whether it came to that.

        A new process that does not become ready is given up, and the old one stays.
        """
        launcher, state = self._launcher, self._state
        try:
            successor = await launcher.launch()
        except HyperbusError as error:
            self._log.error("a new worker process could not be started: the old one goes on", reason=str(error))
            return False
        await until_first(successor.ended, successor.ready, state.stopping, within=READY_WITHIN)
        if state.stopping.is_set() or successor.ended.done() or not successor.ready.is_set():
            code = await launcher.see_out(successor)
            if state.stopping.is_set():
                state.note_end(code)
                return False
            self._log.error(
                "a new worker process did not become ready: the old one goes on",
                pid=successor.pid,
                reason=successor.how_it_ended(),
                old=self.current.pid if self.current else None,
            )
            return False
        async with self._changing:
            if state.stopping.is_set():
                state.note_end(await launcher.see_out(successor))
                return False
            old, self.current = self.current, successor
            self._changed.set()
        if old is not None:
            code = await launcher.see_out(old)
            self._log.info("worker process replaced", pid=successor.pid, old=old.pid, exit_code=code)
        return True

    async def _filled(self) -> WorkerProcess | None:
        """Return the process in this place, started if need be; None when the system has no room for one just now.

        Raises:
            HyperbusError: it has none for the first one of all.
        """
        async with self._changing:
            if self.current is None:
                try:
                    self.current = await self._launcher.launch()
                except HyperbusError as error:
                    if not self._state.was_ready:
                        raise
                    self._tell_no_room(error)
                    return None
            self._told_no_room = False
            self._changed.clear()
            return self.current

    def _tell_no_room(self, error: HyperbusError) -> None:
        if not self._told_no_room:
            self._log.error("a worker process is missing until there is room for it", reason=str(error))
        self._told_no_room = True

    def _note_death(self, process: WorkerProcess) -> None:
        """Remember a death.

        Raises:
            HyperbusError: it was the first process of all, and says what is wrong.
            CrashLoopError: it was one too many.
        """
        if process.failed is not None and not self._state.was_ready:
            raise process.failed.as_error()
        by_server = process.failed is not None and process.failed.server_at_fault
        by_suspect = process.alive.alone  # which is found out and dead-lettered; what it left runs on
        # What kills one that was ready is an entry, as a rule, and entries that do are found out one by one.
        blameless = process.ready.is_set() or by_suspect
        self._deaths = self._deaths.after_death(process.lived, blameless=blameless, server_at_fault=by_server)
        if self._deaths.is_crash_loop:
            raise CrashLoopError(
                f"a worker process died {self._deaths.deaths} times in a row (last exit code {process.ended.result()}"
                f"{', ' if process.killed_because else ''}{process.killed_because or ''}); see its log"
            )
        self._log.warning(
            "worker process died",
            pid=process.pid,
            reason=process.how_it_ended(),
            restart_in=self._deaths.pause,
            **({"suspect": "an entry that killed others ran alone in it"} if by_suspect else {}),
        )
