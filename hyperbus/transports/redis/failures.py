"""What went wrong, on a server: delivery counts, retries, dead letters and suspects, each by one script."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbus.clock import Seconds
from hyperbus.transport import FIRST_ID, DeadLetter
from hyperbus.transports.dead_letters import from_fields, to_fields
from hyperbus.transports.keys import dead_letter_key, retries_key, suspects_key
from hyperbus.transports.redis.command_runner import SCRIPT_ENTRIES, SCRIPT_IDS, Asking, flags, parts, words_of
from hyperbus.transports.redis.connection.reconnecting import Wire
from hyperbus.transports.redis.protocol.commands import milliseconds
from hyperbus.transports.redis.script import Script

#: How long suspects are remembered.
_SUSPECTS_TTL: Seconds = 7 * 24 * 3600.0


class RedisFailures(Asking):
    """Implements `hyperbus.transport.Failures`."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self._set_delivery_counts = Script("set_delivery_counts")
        self._schedule_retries = Script("schedule_retries")
        self._dead_letter = Script("dead_letter")
        self._suspect = Script("suspect")

    async def set_delivery_counts(
        self, stream: str, group: str, consumer: str, counts: Sequence[tuple[bytes, int]]
    ) -> list[bool]:
        """Write the delivery count of entries that `consumer` still owns; tell which."""
        calls = [((stream,), (group, consumer, *words_of(part))) for part in parts(counts, SCRIPT_IDS)]
        return flags(await self._set_delivery_counts.run(self._wire, calls))

    async def schedule_retries(
        self, stream: str, group: str, consumer: str, retries: Sequence[tuple[bytes, int, float]]
    ) -> list[bool]:
        """Write (id, delivery count, due time) of pending entries that `consumer` still owns; tell which."""
        keys = (stream, retries_key(stream, group))
        written = [(entry_id, count, repr(due)) for entry_id, count, due in retries]
        calls = [(keys, (group, consumer, *words_of(part))) for part in parts(written, SCRIPT_IDS)]
        return flags(await self._schedule_retries.run(self._wire, calls))

    async def retry_times(self, stream: str, group: str, ids: Sequence[bytes]) -> list[float | None]:
        """Return when each entry is due, None for one that has no schedule."""
        commands = [("ZMSCORE", retries_key(stream, group), *part) for part in parts(ids, SCRIPT_IDS)]
        replies = self._wire.check(await self._ask(commands))
        return [None if due is None else float(due) for reply in replies for due in reply]

    async def forget_retries(self, stream: str, group: str, ids: Sequence[bytes]) -> int:
        """Drop the schedules of entries; return how many there were."""
        commands = [("ZREM", retries_key(stream, group), *part) for part in parts(ids, SCRIPT_IDS)]
        return sum(self._wire.check(await self._ask(commands)))

    async def dead_letter(self, stream: str, group: str, consumer: str, letters: Sequence[DeadLetter]) -> list[bool]:
        """Append to the group's dead letters and ack, where `consumer` still owns the entry; tell which."""
        keys = (stream, dead_letter_key(stream, group))
        calls = [(keys, (group, consumer, *packed)) for packed in pack_letters(letters, consumer)]
        return flags(await self._dead_letter.run(self._wire, calls))

    async def dead_letters(
        self, stream: str, group: str, *, after: bytes = FIRST_ID, count: int = 100
    ) -> list[tuple[bytes, DeadLetter]]:
        """Return the group's dead letters with their own ids, oldest first."""
        command = ("XRANGE", dead_letter_key(stream, group), b"(" + after, b"+", "COUNT", count)
        [reply] = self._wire.check(await self._ask([command]))
        return [(own_id, from_fields(fields)) for own_id, fields in reply or ()]

    async def suspect(self, stream: str, group: str, ids: Sequence[bytes]) -> list[int]:
        """Count that each entry is begun alone; return how often it was."""
        keys = (suspects_key(stream, group),)
        calls = [(keys, (milliseconds(_SUSPECTS_TTL), *part)) for part in parts(ids, SCRIPT_IDS)]
        return [count for reply in await self._suspect.run(self._wire, calls) for count in reply]

    async def clear_suspects(self, stream: str, group: str, ids: Sequence[bytes]) -> int:
        """Forget that entries were begun alone; return how many were known."""
        commands = [("HDEL", suspects_key(stream, group), *part) for part in parts(ids, SCRIPT_IDS)]
        return sum(self._wire.check(await self._ask(commands)))

    async def suspicions(self, stream: str, group: str, ids: Sequence[bytes]) -> list[int]:
        """Return how often each entry was begun alone."""
        commands = [("HMGET", suspects_key(stream, group), *part) for part in parts(ids, SCRIPT_IDS)]
        replies = self._wire.check(await self._ask(commands))
        return [int(count or 0) for reply in replies for count in reply]


def pack_letters(letters: Sequence[DeadLetter], consumer: str) -> list[list[str | bytes | int]]:
    """Write dead letters as arguments of scripts: for each its entry id, the number of words, the words."""
    packed: list[list[str | bytes | int]] = []
    for part in parts(letters, SCRIPT_ENTRIES):
        arguments: list[str | bytes | int] = []
        for letter in part:
            words = to_fields(letter, consumer)
            arguments += [letter.entry_id, len(words), *words]
        packed.append(arguments)
    return packed
