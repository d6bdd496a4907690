"""What a group lost unread because somebody else trimmed or deleted: noticed, told and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from hyperbus.clock import Seconds
from hyperbus.errors import HyperbusError
from hyperbus.runtime.coordination.lease import Lease
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.group.stream_set import StreamSet
from hyperbus.signals import CutUnread
from hyperbus.transport import FIRST_ID, Position, Records, Streams, id_key, record_names

#: How often a group's streams are looked at, by one of its workers.
LOOK: Seconds = 1.0
#: How long the right to do so is kept without being used.
LEASE: Seconds = 5.0
#: Reading has not kept up if it had to wait for room for so long.
WAITED: Seconds = 0.02
#: How long retention may take to write down what it has cut.
SURE: Seconds = 0.6
#: Read entries of one stream that are counted, to learn how many unread ones there are.
COUNTED = 10_000


class UnreadLosses:
    """Compares what was added to each stream with what the group was given of it and what still waits for it.

    1. What is missing went unread. How much of that was told is kept on the server (`lost:{stream}:group`), where
       retention writes down what it cut itself, so that nothing is told twice. Two looks have to see a loss.
    2. One worker of the group looks every second (`run`).
    3. Newer servers forget a loss as soon as the group has read past it: who reads looks first, now and then
       (`before_read`).
    """

    def __init__(self, member: Member, stream_set: StreamSet, records: Records) -> None:
        self._member = member
        self._stream_set = stream_set
        self._records = records
        self._lease = Lease(records, record_names.losses_lease(member.group), member.consumer, LEASE)
        #: What was missing at the last look, by stream.
        self._missing: dict[str, int] = {}
        self._read_at = float("-inf")

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            with suppress(HyperbusError):  # the reader deals with it
                if await self._lease.hold():
                    await self._look()
            await self._member.clock.sleep(LOOK)

    async def before_read(self, *, waited: Seconds) -> None:
        """Look before a read, unless that was done just now. What is missing is looked at twice.

        `waited`: for how long there was no room for what could have been read. After a while it is looked in any case.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses.
        """
        now = self._member.clock.monotonic()
        if now - self._read_at < LOOK and waited < WAITED:
            return
        self._read_at = now
        first = await self._find(self._stream_set.some(), quickly=True)
        seen = {name: missing for name, missing in first.items() if missing}
        if not seen or not await self._untold(seen):
            return
        await self._member.clock.sleep(SURE)  # retention may have cut them, and be about to write that down
        again = await self._find(tuple(seen), quickly=True)
        for name, missing in again.items():
            await self._settle(name, missing, seen[name])

    async def _look(self) -> None:
        found = await self._find(self._stream_set.some(), quickly=False)
        before = self._missing
        self._missing = {name: missing for name, missing in found.items() if missing}
        for name, missing in found.items():
            if missing or name in before:
                await self._settle(name, missing, before.get(name, 0))

    async def _find(self, names: Sequence[str], *, quickly: bool) -> dict[str, int]:
        """Return how many entries went unread, of those streams of which it is known."""
        streams = self._member.streams
        positions = await streams.positions(self._member.group, names)
        found: dict[str, int] = {}
        for name, position in zip(names, positions, strict=True):
            if position is None or position.added == position.length or (quickly and not position.lacks_next):
                continue
            missing = await missing_of(streams, name, position)
            if missing is not None:
                found[name] = missing
        return found

    async def _untold(self, seen: Mapping[str, int]) -> bool:
        told = await self._records.get([record_names.lost(name, self._member.group) for name in seen])
        return any(missing > _number(value) for missing, value in zip(seen.values(), told, strict=True))

    async def _settle(self, name: str, *looks: int) -> None:
        """Tell of what two looks found missing and was not told yet, and write down what was."""
        member, record = self._member, record_names.lost(name, self._member.group)
        (value,) = await self._records.get([record])
        told = _number(value)
        missing = min(max(told, min(looks)), max(looks))  # fewer: the server has forgotten a loss, and begins anew
        if missing == told:
            return
        mine = await self._records.compare_and_set(record, value, b"%d" % missing)
        if mine and missing > told:
            member.announcer.announce(CutUnread(member.group, name, missing - told, "elsewhere"))


async def missing_of(streams: Streams, name: str, position: Position) -> int | None:
    """Return how many entries of a stream went without a group's being given them.

    None where the server has lost count, or where it would take long to count.
    """
    if position.read is None:
        return None
    delivered = id_key(position.delivered)
    if position.first is None or delivered >= id_key(position.last):
        unread = 0
    elif delivered < id_key(position.first):
        unread = position.length
    else:
        read = await streams.count_between(name, FIRST_ID, position.delivered, COUNTED)
        if read >= COUNTED:
            return None
        unread = position.length - read
    return max(0, position.added - position.read - unread)


async def note_own_cut(streams: Streams, records: Records, name: str, group: str) -> None:
    """Take down that what is missing now is known: retention has cut it, and told of it.

    Raises:
        BusUnavailable, ServerError: the server is away, or refuses.
    """
    (position,) = await streams.positions(group, [name])
    missing = None if position is None else await missing_of(streams, name, position)
    if missing is not None:
        await records.put(record_names.lost(name, group), b"%d" % missing)


def _number(value: bytes | None) -> int:
    """Return how many entries were told of, as a record has it; anybody can write one."""
    return int(value) if value is not None and value.isdigit() else 0
