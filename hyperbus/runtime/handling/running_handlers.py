"""Which handlers of a worker run now, since when, and whether they are being cut off."""

from __future__ import annotations

import asyncio
from typing import Any

from hyperbus.clock import Clock, Seconds
from hyperbus.interruption import is_from_signal


class RunningHandlers:
    """One place for each lane of a worker.

    Attributes:
        began: when each lane's handler began, on the monotonic clock; 0 where none runs. Lanes write it themselves.
    """

    def __init__(self, lanes: int, clock: Clock) -> None:
        self.began = [0.0] * lanes
        self.monotonic = clock.monotonic
        self._lanes: asyncio.Task[Any] | None = None

    def count(self) -> int:
        """Return how many handlers run now."""
        return sum(map(bool, self.began))

    def oldest(self) -> Seconds | None:
        """Return for how long the handler that began first has been running; None when none runs."""
        began = [moment for moment in self.began if moment]
        return self.monotonic() - min(began) if began else None

    def run_in(self, lanes: asyncio.Task[Any] | None) -> None:
        """Note the task that owns all lanes: when that one is cancelled, handlers are cut off."""
        self._lanes = lanes

    def cut_off(self) -> bool:
        """Tell whether all lanes are to end now, as opposed to one whose handler cancelled its own task."""
        return self._lanes is not None and self._lanes.cancelling() > 0

    def failure(self, error: BaseException) -> BaseException:
        """Return what a user's code raised, unless it is that all lanes, or the program, are to end now: then raise it.

        Whatever else it is, `SystemExit` and `KeyboardInterrupt` included, is the failure of a delivery. Of a
        `CancelledError`: something inside the handler was cancelled, or the handler cancelled its own task.
        """
        kind = type(error)  # not `isinstance`: that asks the exception itself, which may answer anything
        if self.cut_off() and not issubclass(kind, Exception):
            raise asyncio.CancelledError from error  # a task group raises what ended the program, and no cancellation
        if issubclass(kind, GeneratorExit) and not _is_loop_running():
            raise error  # the loop was closed with the lane in it, and the lane is thrown away
        if is_from_signal(error):
            raise error
        return error


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
