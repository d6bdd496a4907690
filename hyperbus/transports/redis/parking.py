"""Parked entries on a server: a hash of their bytes, and a sorted set of when each can be taken."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import MsgspecError, msgpack

from hyperbus.clock import Seconds
from hyperbus.transport import DeadLetter, Parked
from hyperbus.transports.keys import dead_letter_key, parked_due_key, parked_key
from hyperbus.transports.redis.dead_letters import move_letters
from hyperbus.transports.redis.part import Part
from hyperbus.transports.redis.script import SCRIPT_ENTRIES, SCRIPT_IDS, Script, flags, slices, words_of

#: Entries, and their bytes, that one call takes.
_TAKEN = 100
_TAKEN_BYTES = 1024 * 1024

_PARK = Script("park")
_TAKE_PARKED = Script("take_parked")
_RENEW_PARKED = Script("renew_parked")
_FINISH_PARKED = Script("finish_parked")
_RESCHEDULE_PARKED = Script("reschedule_parked")
_DEAD_LETTER_PARKED = Script("dead_letter_parked")


class RedisParking(Part):
    """Implements `hyperbus.transport.Parking`."""

    async def park(self, stream: str, group: str, consumer: str, parked: Sequence[Parked]) -> list[bool]:
        """Store entries that `consumer` still owns, and ack them, atomically for each; tell which."""
        keys = (stream, *_keys(stream, group))
        written = [(p.entry_id, msgpack.encode(p.fields), p.tries, repr(p.first_time), repr(p.due)) for p in parked]
        calls = [(keys, (group, consumer, *words_of(part))) for part in slices(written, SCRIPT_ENTRIES)]
        return flags(await self._commands.run_script(_PARK, calls))

    async def take_parked(
        self, stream: str, group: str, holder: str, *, now: float, lease: Seconds, count: int
    ) -> list[Parked]:
        """Take up to `count` entries that are due, earliest first, and hide them from others for `lease` seconds."""
        arguments = (holder, repr(now), repr(now + lease), min(count, _TAKEN), _TAKEN_BYTES)
        [reply] = await self._commands.run_script(_TAKE_PARKED, [(_keys(stream, group), arguments)])
        return [
            Parked(entry_id, _unpack(packed), int(tries), float(first), float(due))
            for entry_id, packed, tries, first, due in reply
        ]

    async def renew_parked(
        self, stream: str, group: str, holder: str, ids: Sequence[bytes], *, now: float, lease: Seconds
    ) -> list[bool]:
        """Hide entries for another `lease` seconds from `now`, where `holder` still has them; tell which."""
        until = repr(now + lease)
        calls = [(_keys(stream, group), (holder, until, *part)) for part in slices(ids, SCRIPT_IDS)]
        return flags(await self._commands.run_script(_RENEW_PARKED, calls))

    async def finish_parked(self, stream: str, group: str, holder: str, ids: Sequence[bytes]) -> list[bool]:
        """Remove entries that are done with, where `holder` still has them; tell which."""
        calls = [(_keys(stream, group), (holder, *part)) for part in slices(ids, SCRIPT_IDS)]
        return flags(await self._commands.run_script(_FINISH_PARKED, calls))

    async def reschedule_parked(
        self, stream: str, group: str, holder: str, changes: Sequence[tuple[bytes, int, float]]
    ) -> list[bool]:
        """Give back entries with (id, tries, due), where `holder` still has them; tell which."""
        written = [(entry_id, tries, repr(due)) for entry_id, tries, due in changes]
        calls = [(_keys(stream, group), (holder, *words_of(part))) for part in slices(written, SCRIPT_IDS)]
        return flags(await self._commands.run_script(_RESCHEDULE_PARKED, calls))

    async def dead_letter_parked(
        self, stream: str, group: str, holder: str, letters: Sequence[DeadLetter]
    ) -> list[bool]:
        """Move entries to the group's dead letters, atomically, where `holder` still has them; tell which."""
        key = dead_letter_key(stream, group)
        keys = (*_keys(stream, group), key)
        return await move_letters(
            self._commands, _DEAD_LETTER_PARKED, keys, (holder,), key=key, letters=letters, consumer=holder
        )

    async def parked_count(self, groups: Sequence[tuple[str, str]]) -> list[int]:
        """Return how many entries each (stream, group) has parked, those that are held included."""
        return await self._commands.count([("ZCARD", parked_due_key(*pair)) for pair in groups])

    async def next_parked(self, groups: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return when the next entry of each (stream, group) can be taken; None for none."""
        commands = [("ZRANGE", parked_due_key(*pair), 0, 0, "WITHSCORES") for pair in groups]
        return [float(reply[1]) if reply else None for reply in await self._commands.run(commands)]


def _unpack(packed: bytes) -> list[bytes]:
    """Return the fields of a parked entry. What somebody else put there is its one field: it is not lost so."""
    try:
        return msgpack.decode(packed, type=list[bytes])
    except (MsgspecError, ValueError, RecursionError):
        return [b"parked", packed]


def _keys(stream: str, group: str) -> tuple[str, str]:
    return parked_key(stream, group), parked_due_key(stream, group)
