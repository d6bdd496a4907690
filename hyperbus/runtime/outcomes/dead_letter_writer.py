"""Moves what must not be retried to the group's dead letters; until that is done the entry stays pending."""

from __future__ import annotations

import asyncio
from collections import deque

from hyperbus.errors import BusUnavailable, GroupNotFoundError, HyperbusError, WrongTypeError
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import Received
from hyperbus.runtime.outcomes.dead_letter import announce_dead_letter, letter_of
from hyperbus.transport import DeadLetter

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0


class DeadLetterWriter:
    """Writes dead letters of one group, one atomic step each, until the server has taken them."""

    def __init__(self, member: Member, inbox: Inbox) -> None:
        self._member = member
        self._inbox = inbox
        self._gathered: deque[tuple[str, DeadLetter]] = deque()
        self._wanted = asyncio.Event()
        self._closing = False

    def add(self, received: Received, reason: str, error: BaseException | None) -> None:
        """Let an entry become a dead letter soon."""
        self._gathered.append((received.stream, letter_of(received, reason, error, self._member.clock.now())))
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
        member, pause = self._member, _FIRST_PAUSE
        while True:
            try:
                (moved,) = await member.streams.dead_letter(stream, member.group, member.consumer, [letter])
                break
            except (GroupNotFoundError, WrongTypeError):
                moved = False  # nothing is pending any more; a group that is rebuilt finds the entry again
                break
            except HyperbusError as error:
                # a full server is waited for too: the entry stays pending meanwhile
                if self._closing and not isinstance(error, BusUnavailable):
                    return
                await member.clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        self._inbox.release(stream, [letter.entry_id])
        if moved:
            announce_dead_letter(member, stream, letter)
