"""Moves what must not be retried to the group's dead letters; until that is done the entry stays pending."""

from __future__ import annotations

import asyncio
from collections import deque

from hyperbus.errors import BusUnavailable, HyperbusError
from hyperbus.runtime.coordination.refusals import Refusals, is_final
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import Received, owned
from hyperbus.runtime.outcomes.dead_letter import announce_dead_letter, letter_of
from hyperbus.transport import DeadLetter, id_before


class DeadLetterWriter:
    """Writes dead letters of one group, one atomic step each, until the server has taken them."""

    def __init__(self, member: Member, inbox: Inbox) -> None:
        self._member = member
        self._inbox = inbox
        self._gathered: deque[tuple[Received, DeadLetter]] = deque()
        self._wanted = asyncio.Event()
        self._closing = False
        self._refusals = Refusals(member.announcer, f"dead letters of {member.group}")

    def add(self, received: Received, reason: str, error: BaseException | None) -> None:
        """Let an entry become a dead letter soon."""
        self._gathered.append((received, letter_of(received, reason, error, self._member.clock.now())))
        self._wanted.set()

    def close(self) -> None:
        """Let `run` end once everything that was added is written."""
        self._closing = True
        self._wanted.set()

    async def run(self) -> None:
        """Write until closed."""
        while True:
            refusal = await self._write_each()
            if refusal is not None and not (self._closing and not isinstance(refusal, BusUnavailable)):
                await self._member.clock.sleep(self._refusals.failed(refusal))
                continue
            if self._closing:
                return
            self._refusals.succeeded()
            self._wanted.clear()
            await self._wanted.wait()

    async def _write_each(self) -> HyperbusError | None:
        """Write what there is, once; keep what is refused, and return why. One stream harms no other."""
        refused: dict[str, HyperbusError] = {}
        left: list[tuple[Received, DeadLetter]] = []
        while self._gathered:
            received, letter = self._gathered.popleft()
            if not owned([received], self._member.era):
                continue
            stream = received.stream
            error = refused.get(stream) or await self._write(stream, letter)
            if error is not None:
                refused[stream] = error
                left.append((received, letter))
        self._gathered.extend(left)
        return next(iter(refused.values()), None)

    async def _write(self, stream: str, letter: DeadLetter) -> HyperbusError | None:
        """Write a dead letter; return why it cannot be, for now: the entry stays pending meanwhile."""
        member = self._member
        try:
            (moved,) = await member.streams.dead_letter(stream, member.group, member.consumer, [letter])
        except HyperbusError as error:
            if not is_final(error) or await self._is_pending(stream, letter):
                return error
            moved = False  # nothing is pending any more; a group that is rebuilt finds the entry again
        self._inbox.release(stream, [letter.entry_id])
        if moved:
            announce_dead_letter(member, stream, letter)
        return None

    async def _is_pending(self, stream: str, letter: DeadLetter) -> bool:
        """Tell whether the entry waits for its dead letter all the same: it is the letters' key that is no stream."""
        member, after = self._member, id_before(letter.entry_id)
        try:
            found = await member.streams.pending(stream, member.group, consumer=member.consumer, after=after, count=1)
        except HyperbusError as error:
            return not is_final(error)
        return any(entry.id == letter.entry_id for entry in found)
