"""The parts of a worker that run side by side, and the order of their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from hyperbus.background import keep_running
from hyperbus.signals import Announcer


class Intake(Protocol):
    """Brings entries in until it is stopped."""

    async def run(self) -> None:
        """Run until stopped."""

    async def stop(self) -> None:
        """Let `run` end; what is under way is taken in first."""


class Lanes(Protocol):
    """Handle what came in, until there is nothing more to begin."""

    async def run(self) -> None:
        """Run until the inbox is closed and what was begun is done."""


class Finisher(Protocol):
    """Tells the server how deliveries ended."""

    async def run(self) -> None:
        """Run until closed."""

    def close(self) -> None:
        """Let `run` end once everything is told."""


#: Something that runs until it is cancelled.
Background = Callable[[], Coroutine[Any, Any, None]]


class Parts:
    """Runs the parts of one worker. One that fails ends them all, but for those in the background.

    What runs there holds no entry of its own, and is begun again; a reader, a lane or a finisher that fails may have an
    entry in hand, which the next worker finds.

    They end in this order: intake and background; the lanes; the read that was under way; the finishers.
    """

    def __init__(
        self,
        owner: str,
        intake: Intake,
        lanes: Lanes,
        *,
        background: Mapping[str, Background] | None = None,
        finishers: Sequence[Finisher] = (),
        announcer: Announcer | None = None,
    ) -> None:
        self._owner = owner
        self._intake = intake
        self._lanes = lanes
        self._background = background or {}
        self._announcer = announcer
        self._finishers = finishers
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start every part as a task of the group."""
        runs: dict[str, list[Background]] = {
            "intake": [self._intake.run],
            "background": [partial(self._keep, part, work) for part, work in self._background.items()],
            "finisher": [finisher.run for finisher in self._finishers],
            "lanes": [self._lanes.run],
        }
        self._tasks = {
            kind: [tasks.create_task(run(), name=f"hyperbus {self._owner} {kind}") for run in starts]
            for kind, starts in runs.items()
        }

    async def _keep(self, part: str, work: Background) -> None:
        await keep_running(work, f"{part} of {self._owner}", announcer=self._announcer)

    async def end_intake(self) -> None:
        """Read, claim and retry nothing more."""
        await self._intake.stop()
        for task in self._tasks["background"]:
            task.cancel()

    async def drain(self, until: float) -> bool:
        """Let what was begun end by a time of the loop's clock, then cut it off; tell whether all of it ended."""
        ended = await _finish_by(until, self._tasks["lanes"])
        await _finish_by(until, self._tasks["intake"])
        return ended

    async def finish(self, until: float) -> None:
        """Let the finishers tell what is still untold, by a time of the loop's clock."""
        for finisher in self._finishers:
            finisher.close()
        await _finish_by(until, self._tasks["finisher"])


async def _finish_by(until: float, tasks: Sequence[asyncio.Task[None]]) -> bool:
    """Wait for tasks until a time of the loop's clock, then cancel what is left; tell if all were done."""
    if not tasks:
        return True
    left = max(0.0, until - asyncio.get_running_loop().time())
    _, late = await asyncio.wait(tasks, timeout=left)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late)
    return not late
