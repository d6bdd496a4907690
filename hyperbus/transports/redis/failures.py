"""What went wrong, on a server: delivery counts, retries, dead letters and suspects, each by one script."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbus.clock import Seconds
from hyperbus.transport import FIRST_ID, DeadLetter
from hyperbus.transports.dead_letters import from_fields
from hyperbus.transports.keys import dead_letter_key, deaths_key, retries_key, suspects_key
from hyperbus.transports.redis.dead_letters import move_letters
from hyperbus.transports.redis.part import Part
from hyperbus.transports.redis.protocol.commands import milliseconds
from hyperbus.transports.redis.script import SCRIPT_IDS, Script, flags, slices, words_of

#: How long suspects and deaths are remembered.
_SUSPECTS_TTL: Seconds = 7 * 24 * 3600.0

_SET_DELIVERY_COUNTS = Script("set_delivery_counts")
_SCHEDULE_RETRIES = Script("schedule_retries")
_DEAD_LETTER = Script("dead_letter")
_SUSPECT = Script("suspect")


class RedisFailures(Part):
    """Implements `hyperbus.transport.Failures`."""

    async def set_delivery_counts(
        self, stream: str, group: str, consumer: str, counts: Sequence[tuple[bytes, int]]
    ) -> list[bool]:
        """Write the delivery count of entries that `consumer` still owns; tell which."""
        calls = [((stream,), (group, consumer, *words_of(part))) for part in slices(counts, SCRIPT_IDS)]
        return flags(await self._commands.run_script(_SET_DELIVERY_COUNTS, calls))

    async def schedule_retries(
        self, stream: str, group: str, consumer: str, retries: Sequence[tuple[bytes, int, float]]
    ) -> list[bool]:
        """Write (id, delivery count, due time) of pending entries that `consumer` still owns; tell which."""
        keys = (stream, retries_key(stream, group))
        written = [(entry_id, count, repr(due)) for entry_id, count, due in retries]
        calls = [(keys, (group, consumer, *words_of(part))) for part in slices(written, SCRIPT_IDS)]
        return flags(await self._commands.run_script(_SCHEDULE_RETRIES, calls))

    async def retry_times(self, stream: str, group: str, ids: Sequence[bytes]) -> list[float | None]:
        """Return when each entry is due, None for one that has no schedule."""
        commands = [("ZMSCORE", retries_key(stream, group), *part) for part in slices(ids, SCRIPT_IDS)]
        replies = await self._commands.run(commands)
        return [None if due is None else float(due) for reply in replies for due in reply]

    async def forget_retries(self, stream: str, group: str, ids: Sequence[bytes]) -> int:
        """Drop the schedules of entries; return how many there were."""
        commands = [("ZREM", retries_key(stream, group), *part) for part in slices(ids, SCRIPT_IDS)]
        return sum(await self._commands.run(commands))

    async def retry_counts(self, groups: Sequence[tuple[str, str]]) -> list[int]:
        """Return how many schedules each (stream, group) has."""
        return await self._commands.count([("ZCARD", retries_key(*pair)) for pair in groups])

    async def dead_letter_counts(self, groups: Sequence[tuple[str, str]]) -> list[int]:
        """Return how many dead letters each (stream, group) has."""
        return await self._commands.count([("XLEN", dead_letter_key(*pair)) for pair in groups])

    async def dead_letter(self, stream: str, group: str, consumer: str, letters: Sequence[DeadLetter]) -> list[bool]:
        """Append to the group's dead letters and ack, where `consumer` still owns the entry; tell which."""
        key = dead_letter_key(stream, group)
        return await move_letters(
            self._commands, _DEAD_LETTER, (stream, key), (group, consumer), key=key, letters=letters, consumer=consumer
        )

    async def dead_letters(
        self, stream: str, group: str, *, after: bytes = FIRST_ID, count: int = 100
    ) -> list[tuple[bytes, DeadLetter]]:
        """Return the group's dead letters with their own ids, oldest first."""
        command = ("XRANGE", dead_letter_key(stream, group), b"(" + after, b"+", "COUNT", count)
        [reply] = await self._commands.run([command])
        return [(own_id, from_fields(fields)) for own_id, fields in reply or ()]

    async def suspect(self, stream: str, group: str, ids: Sequence[bytes]) -> list[int]:
        """Count that each entry is begun alone; return how often it was."""
        return await self._count(suspects_key(stream, group), ids)

    async def clear_suspects(self, stream: str, group: str, ids: Sequence[bytes]) -> int:
        """Forget that entries were begun alone; return how many were known."""
        return await self._forget(suspects_key(stream, group), ids)

    async def suspicions(self, stream: str, group: str, ids: Sequence[bytes]) -> list[int]:
        """Return how often each entry was begun alone."""
        return await self._counts(suspects_key(stream, group), ids)

    async def count_deaths(self, stream: str, group: str, ids: Sequence[bytes]) -> list[int]:
        """Count that each entry was claimed from a worker that had died; return how often it was."""
        return await self._count(deaths_key(stream, group), ids)

    async def deaths(self, stream: str, group: str, ids: Sequence[bytes]) -> list[int]:
        """Return how often each entry was claimed from a worker that had died."""
        return await self._counts(deaths_key(stream, group), ids)

    async def forget_deaths(self, stream: str, group: str, ids: Sequence[bytes]) -> int:
        """Forget that entries were claimed from workers that had died; return how many were known."""
        return await self._forget(deaths_key(stream, group), ids)

    async def _count(self, key: str, ids: Sequence[bytes]) -> list[int]:
        calls = [((key,), (milliseconds(_SUSPECTS_TTL), *part)) for part in slices(ids, SCRIPT_IDS)]
        return [count for reply in await self._commands.run_script(_SUSPECT, calls) for count in reply]

    async def _counts(self, key: str, ids: Sequence[bytes]) -> list[int]:
        replies = await self._commands.run([("HMGET", key, *part) for part in slices(ids, SCRIPT_IDS)])
        return [int(count or 0) for reply in replies for count in reply]

    async def _forget(self, key: str, ids: Sequence[bytes]) -> int:
        return sum(await self._commands.run([("HDEL", key, *part) for part in slices(ids, SCRIPT_IDS)]))
