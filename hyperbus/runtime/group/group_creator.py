"""Where a group begins to read: when it is created, and when the server has lost it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from hyperbus.errors import WrongTypeError
from hyperbus.logger import get_logger
from hyperbus.runtime.group.checkpoints import Checkpoints
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.group.stream_turns import MANY
from hyperbus.signals import GroupRebuilt
from hyperbus.transport import FIRST_ID, Records, is_id, record_names

#: Entries that are counted, when a group is rebuilt, of those it may see again.
COUNT_LIMIT = 100_000


class GroupCreator:
    """Creates one group on its streams.

    New: after what `start_from` says. Lost: after the highest checkpoint known; never at the stream's end.
    """

    def __init__(self, member: Member, records: Records, checkpoints: Checkpoints, start_from: str) -> None:
        self._member = member
        self._records = records
        self._checkpoints = checkpoints
        self._start_from = start_from
        self._after: bytes | None = None

    async def prepare(self) -> None:
        """Find where the group begins, and have it kept: what is published from now on is the group's.

        Raises:
            BusUnavailable: the server is away.
        """
        if self._after is None:
            self._after = await self._find_start_id()

    async def create(self, streams: Sequence[str]) -> None:
        """Create the group on each stream. A key that is no stream harms no other: it is set aside by the first read.

        Raises:
            BusUnavailable, ServerError: the server is away, or full.
        """
        await self.prepare()
        member, after = self._member, self._after or FIRST_ID
        try:
            for start in range(0, len(streams), MANY):
                page = streams[start : start + MANY]
                await member.streams.create_groups([(name, member.group, after) for name in page])
        except WrongTypeError:
            for name in streams:
                with suppress(WrongTypeError):
                    await member.streams.create_groups([(name, member.group, after)])

    async def rebuild(self, stream: str, last_read: bytes | None) -> None:
        """Create the group again, where the server has lost it.

        `last_read`: the last id that this worker read of the stream: what lies before it may come again.

        Raises:
            HyperbusError: the server is away, or refuses.
        """
        member = self._member
        start = await self._checkpoints.start_of(stream)
        (is_new,) = await member.streams.create_groups([(stream, member.group, start)])
        if is_new:
            replayed = await member.streams.count_between(stream, start, last_read or start, COUNT_LIMIT)
            member.announcer.announce(GroupRebuilt(member.group, stream, start.decode(), replayed))

    async def _find_start_id(self) -> bytes:
        if self._start_from == "first":
            return FIRST_ID
        if self._start_from != "new":
            return self._start_from.encode()
        # "New" means since the group was first declared, by any process: the time is kept, and is an entry id.
        name = record_names.group_start(self._member.group)
        declared = f"{int(await self._records.server_time() * 1000) - 1}-18446744073709551615".encode()
        if await self._records.compare_and_set(name, None, declared):
            return declared
        (stored,) = await self._records.get([name])
        if stored is None or is_id(stored):
            return stored or declared
        get_logger("hyperbus").warning(
            "the record of when a group was first declared holds no entry id: it begins now", group=self._member.group
        )
        await self._records.put(name, declared)
        return declared
