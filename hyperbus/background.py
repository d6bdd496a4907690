"""Keeps tasks running that have no caller: one that fails is told of and begun again, and none dies unwatched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hyperbus.clock import Clock, Seconds, SystemClock
from hyperbus.error_text import describe
from hyperbus.logger import get_logger
from hyperbus.signals import Announcer, BackgroundChanged

#: How long a task that failed rests before it is begun again: at first, and at most.
FIRST_PAUSE: Seconds = 0.1
LONGEST_PAUSE: Seconds = 30.0
#: A task that was begun again counts as mended once it has run for this long.
STEADY: Seconds = 5.0

#: What runs until it is cancelled, or returns because it was told to end. It can be begun again at any time.
Work = Callable[[], Awaitable[None]]


async def keep_running(
    work: Work, part: str, *, announcer: Announcer | None = None, clock: Clock | None = None
) -> None:
    """Run `work` until it returns, or this is cancelled. Whenever it raises, begin it again after a pause.

    Each failure is logged with its traceback, and announced where there is an announcer. The pause doubles from
    `FIRST_PAUSE` to `LONGEST_PAUSE` while it goes on failing, so that nothing spins and no log is flooded.

    Args:
        work: it must bear to be begun again, wherever it was when it raised.
        part: what it is, for people, such as "stream finder".
        announcer: hears of failures, and of their end.
        clock: what its times go by.
    """
    time = clock or SystemClock()
    log = get_logger("hyperbus")
    pause = FIRST_PAUSE
    failed = False

    def mended() -> None:
        nonlocal pause, failed
        pause, failed = FIRST_PAUSE, False
        log.info("a background task runs again", part=part)
        if announcer is not None:
            announcer.announce(BackgroundChanged(part, running=True))

    while True:
        steady = asyncio.get_running_loop().call_later(STEADY, mended) if failed else None
        try:
            return await work()
        except Exception as error:
            log.error("a background task failed and is begun again", part=part, pause=pause, exc_info=error)  # noqa: TRY400
            if announcer is not None:
                announcer.announce(BackgroundChanged(part, running=False, error=describe(error)))
            failed = True
        finally:
            if steady is not None:
                steady.cancel()
        await time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


class BackgroundTasks:
    """The tasks of one owner, each kept running; they end with it."""

    def __init__(self, *, announcer: Announcer | None = None, clock: Clock | None = None) -> None:
        self._announcer = announcer
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Work, part: str) -> None:
        """Keep `work` running from now on; see `keep_running`."""
        kept = keep_running(work, part, announcer=self._announcer, clock=self._clock)
        self._tasks.append(asyncio.create_task(kept, name=f"hyperbus {part}"))

    async def stop(self) -> None:
        """Cancel them, the last one first, and wait for each. Twice is safe."""
        while self._tasks:
            task = self._tasks.pop()
            task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
