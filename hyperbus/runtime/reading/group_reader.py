"""Reads new entries of a group into the inbox, on a connection of its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress

from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, GroupNotFoundError, HyperbusError, ServerError, WrongTypeError
from hyperbus.runtime.coordination.refusals import Losses
from hyperbus.runtime.group.group_creator import GroupCreator
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.group.ownership import Ownership
from hyperbus.runtime.group.stream_set import LOOK_AGAIN, StreamSet
from hyperbus.runtime.group.stream_turns import MANY, PAGE
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.pending_doubt import PendingDoubt
from hyperbus.runtime.in_flight.received import receive
from hyperbus.runtime.reading.pending_recovery import PendingRecovery
from hyperbus.runtime.reading.read_planner import Ask, ReadPlanner
from hyperbus.transport import FIRST_ID, Page, Read, Reader

#: How long a read waits for something new before it is asked again.
BLOCK: Seconds = 2.0
#: The same where the group is ordered: a worker that is not to read any more finds out between two reads.
ORDERED_BLOCK: Seconds = 0.2
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
#: Streams that are refused one after the other, and nothing else, say that the server refuses them all.
_ENOUGH = 20


class GroupReader:
    """Reads for one consumer of a group.

    1. Waits until the inbox wants more, then for entries; one read covers every stream of the group. Where many have
       more than it can take, `ReadPlanner` asks a few at a time.
    2. After any read that may have been answered unheard, asks for what this consumer holds pending, and for less at a
       time (`ReadSize`).
    3. Creates a group again that the server has lost.
    4. Sets aside, for a while, a stream that is no stream, and one of several that the server refuses to read. When
       it refuses all, as for want of rights or of a disk, that is waited for.
    """

    def __init__(
        self,
        member: Member,
        connection: Reader,
        stream_set: StreamSet,
        creator: GroupCreator,
        ownership: Ownership,
        doubt: PendingDoubt,
        recovery: PendingRecovery,
        inbox: Inbox,
    ) -> None:
        self._member = member
        self._connection = connection
        self._stream_set = stream_set
        self._creator = creator
        self._ownership = ownership
        self._doubt = doubt
        self._recovery = recovery
        self._inbox = inbox
        #: The last id that was read of each stream: what a rebuilt group may see again.
        self._last_read: dict[str, bytes] = {}
        self._planner = ReadPlanner()
        self._changed = asyncio.Event()
        self._losses = Losses(member.announcer, f"reader of {member.group}")
        self._stopping = False

    async def add_streams(self, streams: Mapping[str, str]) -> None:
        """Read these streams (key and type) too, from now on; their groups exist."""
        self._stream_set.add(streams)
        await self.look_soon()

    async def look_soon(self) -> None:
        """End a wait: there is something else to read."""
        self._changed.set()
        await self._connection.wake()

    async def join(self) -> None:
        """Become known to the group before the first read: others hand over only to those that it knows."""
        member = self._member
        for name in self._stream_set.readable()[:MANY]:  # of very many, the others know it as they are read
            with suppress(ServerError):  # the first read deals with it
                await self._connection.read_pending(member.group, member.consumer, name, after=FIRST_ID, count=1)

    async def stop(self) -> None:
        """Let `run` end; a read that is under way is taken in first."""
        self._stopping = True
        self._changed.set()
        await self._connection.wake()

    async def run(self) -> None:
        """Read until stopped."""
        pause = _FIRST_PAUSE
        while not self._stopping:
            try:
                answered = await self._read_once()
            except BusUnavailable as error:
                self._doubt.arise()
                self._losses.lost(error)
            except GroupNotFoundError:
                await self._rebuild()
            except ServerError as error:
                if not await self._set_aside():
                    self._losses.lost(error)
            else:
                if answered:
                    pause = _FIRST_PAUSE
                    self._losses.found()
                continue
            self._planner.forget()
            await self._pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _read_once(self) -> bool:
        """Read once; tell whether the server has shown that it takes reads, which what is pending does not show."""
        if self._doubt.raised:
            await self._recovery.settle()
        names = self._stream_set.readable()
        if not names:
            await self._look_again()
            await self._pause(LOOK_AGAIN if self._stream_set.has_refused else BLOCK)
            return True
        began = self._member.clock.monotonic()
        room = await self._inbox.wait_until_wanted()
        waited = self._member.clock.monotonic() - began
        block = await self._wait_until_owned()
        # what is found again is older than what a read would bring
        if self._stopping or self._doubt.raised or not room:
            return self._ownership.ordered  # who may not read for long has nothing else to go by
        if self._stream_set.has_refused:
            block = min(block, LOOK_AGAIN)
            await self._look_again()
        member, turns = self._member, self._stream_set.turns
        await self._recovery.losses.before_read(waited=waited)
        turn = turns.next(names, member.clock.monotonic(), room=room)
        if turn.wait is not None:
            self._planner.forget()  # there are very many, and turns take the place of its plans
        ask = self._planner.next(turn.names, room, most=self._inbox.sizes.most, fits=self._inbox.fits)
        if self._doubt.era.is_over:
            return False
        read = await self._ask(ask, block if turn.wait is None else min(block, turn.wait))
        now = member.clock.now()
        for stream, page in read:
            self._take_in(stream, page, now)
        self._inbox.sizes.passed(sum(len(page) for _, page in read))
        if turn.wait is not None:
            turns.answered(turn, ask.names, ask.each, read, member.clock.monotonic())
        elif len(names) > 1:
            self._planner.answered(ask, {stream: len(page) for stream, page in read})
        return True

    async def _ask(self, ask: Ask, block: Seconds) -> Read:
        member, inbox = self._member, self._inbox
        inbox.awaited_since = member.clock.monotonic() if ask.waits else None
        try:
            return await self._connection.read_group(
                member.group, member.consumer, ask.names, count=ask.each, block=block if ask.waits else 0
            )
        except BusUnavailable:
            inbox.sizes.failed(ask.each * len(ask.names))
            raise
        finally:
            inbox.awaited_since = None

    async def _wait_until_owned(self) -> Seconds:
        """Wait until this worker may read, where its group is ordered; return how long the read may wait.

        Not while there is something to recover: nobody may read before that is done.
        """
        if not self._ownership.ordered:
            return BLOCK
        while not self._ownership.may_read_for(ORDERED_BLOCK):
            if self._stopping or self._doubt.raised:
                break
            await self._pause(ORDERED_BLOCK / 4)
        return ORDERED_BLOCK

    def _take_in(self, stream: str, page: Page, now: float) -> None:
        self._last_read[stream] = page.pairs[-1][0]
        self._inbox.put(
            stream, receive(stream, self._stream_set.type_in(stream), page.pairs, now, self._doubt.era.current)
        )

    async def _rebuild(self) -> None:
        """Create the group again where it is missing."""
        for name in await self._missing():
            with suppress(HyperbusError):  # the next read fails as well, and says why
                await self._creator.rebuild(name, self._last_read.get(name))

    async def _missing(self) -> list[str]:
        """Return the streams on which the group may be missing."""
        names = self._stream_set.readable()
        missing: list[str] = []
        for start in range(0, len(names), PAGE):
            page = names[start : start + PAGE]
            try:
                infos = await self._member.streams.info(page)
            except HyperbusError:  # one of them is none, or the server is away: asking each tells which
                missing += page
                continue
            for name, info in zip(page, infos, strict=True):
                if info is None or all(group.group != self._member.group for group in info.groups):
                    missing.append(name)
        return missing

    async def _set_aside(self) -> bool:
        """Find the streams that cannot be read, and set them aside; False if it is not because of them.

        Where none can be read it is because of the server: then only those are set aside that are no streams.
        """
        refused: dict[str, ServerError] = {}
        some_readable = False
        names = self._stream_set.readable()
        for name in random.sample(names, len(names)):
            try:
                await self._probe(name)
            except BusUnavailable:
                return True  # the next read finds out
            except GroupNotFoundError:
                some_readable = True  # once it is made again, at the next read
            except ServerError as error:
                refused[name] = error
                if len(refused) >= _ENOUGH and not some_readable:
                    break
            else:
                some_readable = True
        for name, refusal in list(refused.items()):
            if some_readable or isinstance(refusal, WrongTypeError):
                self._stream_set.set_aside(name, refusal)
            else:
                del refused[name]
        return bool(refused)

    async def _look_again(self) -> None:
        """Take streams up again that were refused and can be read now."""
        for name in self._stream_set.due():
            try:
                await self._probe(name)
            except BusUnavailable:
                raise
            except GroupNotFoundError:
                pass  # the next read has it made again
            except ServerError:
                continue
            self._stream_set.readmit(name)

    async def _probe(self, stream: str) -> None:
        """Read one stream, without waiting: one entry, if there is room for it and this worker may read.

        Raises:
            BusUnavailable, ServerError: it cannot be read.
        """
        member = self._member
        may_read = self._ownership.may_read_for(ORDERED_BLOCK) and not self._doubt.era.is_over
        if not self._inbox.room() or not may_read:
            await member.streams.info([stream])
            return
        read = await self._connection.read_group(member.group, member.consumer, (stream,), count=1, block=0)
        for name, page in read:
            self._take_in(name, page, member.clock.now())

    async def _pause(self, seconds: Seconds) -> None:
        """Wait, but not while something has changed or the worker stops."""
        self._changed.clear()
        if self._stopping:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
