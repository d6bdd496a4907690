"""Groups on a server: who is in them, what is pending with whom, and how it changes hands."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbus.transport import FIRST_ID, Entry, PendingEntry, PendingSummary
from hyperbus.transports.keys import checkpoint_key, deaths_key, parked_due_key, parked_key, retries_key, suspects_key
from hyperbus.transports.redis.part import Part
from hyperbus.transports.redis.protocol.names import name_of
from hyperbus.transports.redis.script import SCRIPT_ENTRIES, SCRIPT_IDS, Script, flags, slices, words_of

#: What is kept for a group under keys of its own, and goes with it.
KEPT = (checkpoint_key, retries_key, suspects_key, deaths_key, parked_key, parked_due_key)

#: Pending entries that are removed at a time when a group is destroyed, and what the script says when there are more.
_PENDING_PAGE = 500
_AGAIN = 2

_CREATE_GROUP = Script("create_group")
_CLAIM = Script("claim")
_HAND_OVER = Script("hand_over")
_REMOVE_CONSUMER = Script("remove_consumer")
_DESTROY_GROUP = Script("destroy_group")


class RedisGroups(Part):
    """Implements `hyperbus.transport.Groups`."""

    async def create_groups(self, groups: Sequence[tuple[str, str, bytes]]) -> list[bool]:
        """Create (stream, group, after this id) where missing, with the stream; tell which were created."""
        calls = [((stream,), (group, after)) for stream, group, after in groups]
        return list(map(bool, await self._commands.run_script(_CREATE_GROUP, calls)))

    async def destroy_group(self, stream: str, group: str) -> bool:
        """Remove a group for good, with its pending list and all that is kept for it but its dead letters."""
        keys = (stream, *(key_of(stream, group) for key_of in KEPT))
        while True:
            [destroyed] = await self._commands.run_script(_DESTROY_GROUP, [(keys, (group, _PENDING_PAGE))])
            if destroyed != _AGAIN:
                return bool(destroyed)

    async def consumers(self, groups: Sequence[tuple[str, str]]) -> list[list[str]]:
        """Return the names of all consumers of each (stream, group); [] where either is missing."""
        replies = await self._commands.find([("XINFO", "CONSUMERS", stream, group) for stream, group in groups])
        return [
            [name_of(dict(zip(pairs[::2], pairs[1::2], strict=True))[b"name"]) for pairs in reply or ()]
            for reply in replies
        ]

    async def remove_consumer(self, group: str, consumer: str, streams: Sequence[str]) -> int:
        """Remove `consumer` from its group where it has nothing pending; return from how many."""
        return sum(
            await self._commands.run_script(_REMOVE_CONSUMER, [((name,), (group, consumer)) for name in streams])
        )

    async def ack(self, acks: Sequence[tuple[str, str, Sequence[bytes]]]) -> list[int]:
        """Ack (stream, group, ids); return how many of the ids were still pending."""
        commands = [("XACK", stream, group, *ids) for stream, group, ids in acks if ids]
        replies = iter(await self._commands.run(commands, same_era=True))
        return [next(replies) if ids else 0 for _, _, ids in acks]

    async def pending_summaries(self, groups: Sequence[tuple[str, str]]) -> list[PendingSummary]:
        """Return the summary of each (stream, group); an empty one where either is missing."""
        replies = await self._commands.find([("XPENDING", stream, group) for stream, group in groups])
        return [
            PendingSummary(0, {})
            if reply is None
            else PendingSummary(reply[0], {name_of(name): int(number) for name, number in reply[3] or ()})
            for reply in replies
        ]

    async def pending(
        self,
        stream: str,
        group: str,
        *,
        consumer: str | None = None,
        after: bytes = FIRST_ID,
        count: int = 100,
    ) -> list[PendingEntry]:
        """Return pending entries with an id above `after`, oldest first."""
        command = ("XPENDING", stream, group, b"(" + after, b"+", count, *(() if consumer is None else (consumer,)))
        [reply] = await self._commands.find([command])
        return [
            PendingEntry(entry_id, name_of(holder), idle / 1000, delivery_count)
            for entry_id, holder, idle, delivery_count in reply or ()
        ]

    async def claim(
        self, stream: str, group: str, consumer: str, ids: Sequence[bytes], *, owner: str, in_order: bool = False
    ) -> list[tuple[Entry, int]]:
        """Take over those of `ids` that `owner` still holds."""
        pieces = [ids] if in_order and ids else slices(ids, SCRIPT_ENTRIES)
        calls = [((stream,), (group, consumer, owner, int(in_order), *part)) for part in pieces]
        replies = await self._commands.run_script(_CLAIM, calls, same_era=True)
        return [(Entry(entry_id, fields), count) for reply in replies for entry_id, fields, count in reply]

    async def hand_over(
        self, stream: str, group: str, consumer: str, to: str, counts: Sequence[tuple[bytes, int]]
    ) -> list[bool]:
        """Give entries that `consumer` still owns to the consumer `to`, with these delivery counts; tell which."""
        calls = [((stream,), (group, consumer, to, *words_of(part))) for part in slices(counts, SCRIPT_IDS)]
        return flags(await self._commands.run_script(_HAND_OVER, calls))
