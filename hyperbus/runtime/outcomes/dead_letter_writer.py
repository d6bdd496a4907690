"""Moves what must not be retried to the group's dead letters; until that is done the entry stays pending."""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Iterable

from hyperbus.clock import Clock
from hyperbus.errors import BusUnavailable, GroupNotFoundError, HyperbusError, WrongTypeError
from hyperbus.runtime.in_flight.inbox import Received
from hyperbus.signals import Announcer, EntryDeadLettered
from hyperbus.transport import DeadLetter, Streams

#: Characters of an error's message, and of its trace, that are kept.
MESSAGE_LIMIT = 1_000
TRACE_LIMIT = 8_000
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0


class DeadLetterWriter:
    """Writes dead letters of one group, one atomic step each, until the server has taken them."""

    def __init__(
        self,
        streams: Streams,
        group: str,
        consumer: str,
        *,
        announcer: Announcer,
        clock: Clock,
        let_go: Callable[[str, Iterable[bytes]], None],
    ) -> None:
        self._streams = streams
        self._group = group
        self._consumer = consumer
        self._announcer = announcer
        self._clock = clock
        self._let_go = let_go
        self._gathered: deque[tuple[str, DeadLetter]] = deque()
        self._wanted = asyncio.Event()
        self._closing = False

    def add(self, received: Received, reason: str, error: BaseException | None) -> None:
        """Let an entry become a dead letter soon."""
        self._gathered.append((received.stream, letter_of(received, reason, error, self._clock.now())))
        self._wanted.set()

    def close(self) -> None:
        """Let `run` end once everything that was added is written."""
        self._closing = True
        self._wanted.set()

    async def run(self) -> None:
        """Write until closed."""
        while True:
            if not self._gathered:
                if self._closing:
                    return
                self._wanted.clear()
                await self._wanted.wait()
                continue
            stream, letter = self._gathered.popleft()
            await self._write(stream, letter)

    async def _write(self, stream: str, letter: DeadLetter) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                (moved,) = await self._streams.dead_letter(stream, self._group, self._consumer, [letter])
                break
            except (GroupNotFoundError, WrongTypeError):
                moved = False  # nothing is pending any more; a group that is rebuilt finds the entry again
                break
            except HyperbusError as error:
                # a full server is waited for too: the entry stays pending meanwhile
                if self._closing and not isinstance(error, BusUnavailable):
                    return
                await self._clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        self._let_go(stream, [letter.entry_id])
        if moved:
            self._announcer.announce(
                EntryDeadLettered(
                    self._group, stream, letter.entry_id.decode(), letter.reason, letter.error, letter.message
                )
            )


def letter_of(received: Received, reason: str, error: BaseException | None, now: float) -> DeadLetter:
    """Return the dead letter that an entry becomes."""
    trace = "".join(traceback.format_exception(error)) if error is not None else ""
    return DeadLetter(
        entry_id=received.id,
        fields=received.fields,
        reason=reason,
        error=type(error).__name__ if error is not None else "",
        message=str(error)[:MESSAGE_LIMIT] if error is not None else "",
        trace=trace[-TRACE_LIMIT:],
        tries=received.tries,
        first_time=received.first_time,
        last_time=now,
    )
