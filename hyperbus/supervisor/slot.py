"""One of a supervisor's places for a process: kept filled, and refilled without a gap when its process is replaced."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import Protocol

import structlog

from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, CrashLoopError, HyperbusError
from hyperbus.supervisor.process import WorkerProcess
from hyperbus.supervisor.restart_policy import RestartState
from hyperbus.supervisor.waiting import until_first

#: How long a new process may take until it is ready to take the place of another.
READY_WITHIN: Seconds = 120.0


class Keeper(Protocol):
    """What a slot asks of its supervisor."""

    stopping: asyncio.Event
    killing: asyncio.Event

    @property
    def was_ready(self) -> bool:
        """Whether a process was ever ready: what fails then is no mistake of the start."""
        ...

    async def launch(self) -> WorkerProcess:
        """Start a process.

        Raises:
            HyperbusError: the system has no room for it.
        """
        ...

    async def see_out(self, process: WorkerProcess) -> int:
        """Let a process drain, or end it when it does not; clear up after it; return its exit code."""
        ...

    async def bury(self, process: WorkerProcess) -> None:
        """Clear up after a process that is dead."""
        ...

    def note_ready(self) -> None:
        """Hear that a process is ready."""
        ...

    def note_end(self, code: int) -> None:
        """Hear how a process ended that was told to, because everything stops."""
        ...


class Slot:
    """Keeps one process running. Restarts one that dies, with backoff; replaces one on demand.

    While a process is replaced there are two: the new one is ready before the old one drains. When both the restart
    of a dead process and its replacement are under way, the one that is ready last takes the place of the other.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.current: WorkerProcess | None = None
        self._state = RestartState()
        self._changing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._log = structlog.get_logger("hyperbus.supervisor")

    async def keep(self) -> None:
        """Keep a process running until everything stops.

        Raises:
            HyperbusError: the first one of all could not start; it says why.
            CrashLoopError: it kept dying.
        """
        keeper = self._keeper
        while not keeper.stopping.is_set():
            process = await self._filled()
            await until_first(process.ended, process.ready, keeper.stopping, self._changed)
            if process.ready.is_set():
                keeper.note_ready()
                await until_first(process.ended, keeper.stopping, self._changed)
            if keeper.stopping.is_set() or self.current is not process:
                continue
            self.current = None
            await keeper.bury(process)
            if not keeper.stopping.is_set():
                self._note_death(process)
                pause = self._state.pause * random.uniform(0.9, 1.0)  # noqa: S311 - jitter
                await until_first(keeper.stopping, self._changed, within=pause)
        async with self._changing:
            last, self.current = self.current, None
        if last is not None:
            keeper.note_end(await keeper.see_out(last))

    async def replace(self) -> bool:
        """Put a new process in the place of the present one, which then drains; return whether it came to that.

        A new process that does not become ready is given up, and the old one stays.
        """
        keeper = self._keeper
        try:
            successor = await keeper.launch()
        except HyperbusError as error:
            self._log.error("a new worker process could not be started: the old one goes on", reason=str(error))
            return False
        await until_first(successor.ended, successor.ready, keeper.stopping, within=READY_WITHIN)
        if keeper.stopping.is_set() or successor.ended.done() or not successor.ready.is_set():
            code = await keeper.see_out(successor)
            if keeper.stopping.is_set():
                keeper.note_end(code)
                return False
            self._log.error(
                "a new worker process did not become ready: the old one goes on",
                pid=successor.pid,
                reason=successor.how_it_ended(),
                old=self.current.pid if self.current else None,
            )
            return False
        async with self._changing:
            if keeper.stopping.is_set():
                keeper.note_end(await keeper.see_out(successor))
                return False
            old, self.current = self.current, successor
            self._changed.set()
        if old is not None:
            code = await keeper.see_out(old)
            self._log.info("worker process replaced", pid=successor.pid, old=old.pid, exit_code=code)
        return True

    async def _filled(self) -> WorkerProcess:
        """Return the process in this place, started if need be."""
        async with self._changing:
            if self.current is None:
                self.current = await self._keeper.launch()
            self._changed.clear()
            return self.current

    def _note_death(self, process: WorkerProcess) -> None:
        """Remember a death.

        Raises:
            HyperbusError: it was the first process of all, and says what is wrong.
            CrashLoopError: it was one too many.
        """
        if process.failed is not None and not self._keeper.was_ready:
            raise process.failed.as_error()
        server_away = process.failed is not None and process.failed.exit_code == BusUnavailable.exit_code
        by_suspect = process.alive.alone  # which is found out and dead-lettered; what it left runs on
        self._state = self._state.after_death(process.lived, blameless=server_away or by_suspect)
        if self._state.is_crash_loop:
            raise CrashLoopError(
                f"a worker process died {self._state.deaths} times in a row (last exit code {process.ended.result()}"
                f"{', ' if process.killed_because else ''}{process.killed_because or ''}); see its log"
            )
        self._log.warning(
            "worker process died",
            pid=process.pid,
            reason=process.how_it_ended(),
            restart_in=self._state.pause,
            **({"suspect": "an entry that killed others ran alone in it"} if by_suspect else {}),
        )


async def stop_process(process: WorkerProcess, *, killing: asyncio.Event, within: Seconds) -> int:
    """Let a process drain; kill it when its time is up, or `killing` is set. Return its exit code."""
    if not process.ended.done():
        process.send(signal.SIGTERM)
        await until_first(process.ended, killing, within=within)
    if not process.ended.done():
        structlog.get_logger("hyperbus.supervisor").warning(
            "worker process killed: it did not drain in time", pid=process.pid
        )
        process.send(signal.SIGKILL)
    return await process.wait()
