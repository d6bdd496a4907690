"""Streams and their groups on a server: what the contract asks, in as few round trips as it says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from hyperbus.errors import BusUnavailable, HyperbusError, PublishRefusedError, PublishUncertain
from hyperbus.transport import (
    FIRST_ID,
    DeadLetter,
    Entry,
    GroupInfo,
    NewEntry,
    PendingEntry,
    PendingSummary,
    StreamInfo,
)
from hyperbus.transports.keys import dead_letter_key
from hyperbus.transports.redis.commands import pack, pack_all, pack_appends
from hyperbus.transports.redis.connection import NoAnswerError, Wire
from hyperbus.transports.redis.dead_letters import from_words, to_words
from hyperbus.transports.redis.replies import Refusal, is_away, is_missing
from hyperbus.transports.redis.script import Script

#: Ids that one script looks at: a server does nothing else while a script runs.
_SCRIPT_IDS = 500
#: Dead letters that one script moves; they carry whole entries and traces.
_SCRIPT_LETTERS = 50
#: Keys that a server looks at in one SCAN.
_SCAN_KEYS = 1_000


class RedisStreams:
    """Implements `hyperbus.transport.Streams`.

    Args:
        wire: for everything but appends.
        append_wire: for appends, so that large ones do not hold up acks.
    """

    def __init__(self, wire: Wire, append_wire: Wire) -> None:
        self._wire = wire
        self._append_wire = append_wire
        self._claim = Script("claim")
        self._set_delivery_counts = Script("set_delivery_counts")
        self._dead_letter = Script("dead_letter")
        self._remove_consumer = Script("remove_consumer")
        self._last_id = Script("last_id")

    async def append(self, entries: Sequence[NewEntry]) -> list[str | HyperbusError]:
        """Append entries in order; return the id of each, or the error it met."""
        wire = self._append_wire
        results: list[str | HyperbusError] = []
        sent: list[tuple[asyncio.Future[list[Any]], int]] = []
        unsent: HyperbusError | None = None
        try:
            try:
                for packed, count in pack_appends(entries):
                    sent.append((await wire.send(packed, count), count))
            except HyperbusError as error:
                # What follows is not tried: over a new connection it would overtake what is uncertain.
                unsent = error
            for future, count in sent:
                results += await self._outcomes(future, count)
        finally:
            for future, _ in sent:
                future.cancel()
        if unsent is not None:
            kind = type(unsent) if isinstance(unsent, BusUnavailable) else PublishRefusedError
            results += [kind(str(unsent)) for _ in range(len(entries) - len(results))]
        return results

    async def create_groups(self, groups: Sequence[tuple[str, str, bytes]]) -> list[bool]:
        """Create (stream, group, after this id) where missing, with the stream; tell which were created."""
        commands = [("XGROUP", "CREATE", stream, group, after, "MKSTREAM") for stream, group, after in groups]
        replies = await self._ask(commands)
        # Another worker may have been faster: that is success too.
        there = [type(reply) is Refusal and str(reply).startswith("BUSYGROUP") for reply in replies]
        self._wire.check([reply for reply, known in zip(replies, there, strict=True) if not known])
        return [not known for known in there]

    async def ack(self, acks: Sequence[tuple[str, str, Sequence[bytes]]]) -> list[int]:
        """Ack (stream, group, ids); return how many of the ids were still pending."""
        commands = [("XACK", stream, group, *ids) for stream, group, ids in acks if ids]
        replies = iter(self._wire.check(await self._ask(commands)))
        return [next(replies) if ids else 0 for _, _, ids in acks]

    async def pending_summaries(self, groups: Sequence[tuple[str, str]]) -> list[PendingSummary]:
        """Return the summary of each (stream, group); an empty one where either is missing."""
        replies = self._found(await self._ask([("XPENDING", stream, group) for stream, group in groups]))
        return [
            PendingSummary(0, {})
            if reply is None
            else PendingSummary(reply[0], {name.decode(): int(number) for name, number in reply[3] or ()})
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
        [reply] = self._found(await self._ask([command]))
        return [
            PendingEntry(entry_id, holder.decode(), idle / 1000, delivery_count)
            for entry_id, holder, idle, delivery_count in reply or ()
        ]

    async def claim(
        self, stream: str, group: str, consumer: str, ids: Sequence[bytes], *, owner: str
    ) -> list[tuple[Entry, int]]:
        """Take over those of `ids` that `owner` still holds."""
        calls = [((stream,), (group, consumer, owner, *part)) for part in _parts(ids, _SCRIPT_IDS)]
        replies = await self._claim.run(self._wire, calls)
        return [(Entry(entry_id, fields), count) for reply in replies for entry_id, fields, count in reply]

    async def set_delivery_counts(
        self, stream: str, group: str, consumer: str, counts: Sequence[tuple[bytes, int]]
    ) -> list[bool]:
        """Write the delivery count of entries that `consumer` still owns; tell which."""
        calls = [
            ((stream,), (group, consumer, *(word for pair in part for word in pair)))
            for part in _parts(counts, _SCRIPT_IDS)
        ]
        replies = await self._set_delivery_counts.run(self._wire, calls)
        return [bool(written) for reply in replies for written in reply]

    async def dead_letter(self, stream: str, group: str, consumer: str, letters: Sequence[DeadLetter]) -> list[bool]:
        """Append to the group's dead letters and ack, where `consumer` still owns the entry; tell which."""
        keys = (stream, dead_letter_key(stream, group))
        calls = []
        for part in _parts(letters, _SCRIPT_LETTERS):
            arguments: list[str | bytes | int] = [group, consumer]
            for letter in part:
                words = to_words(letter, consumer)
                arguments += [letter.entry_id, len(words), *words]
            calls.append((keys, arguments))
        replies = await self._dead_letter.run(self._wire, calls)
        return [bool(moved) for reply in replies for moved in reply]

    async def dead_letters(
        self, stream: str, group: str, *, after: bytes = FIRST_ID, count: int = 100
    ) -> list[tuple[bytes, DeadLetter]]:
        """Return the group's dead letters with their own ids, oldest first."""
        entries = await self.range(dead_letter_key(stream, group), after=after, count=count)
        return [(entry.id, from_words(entry.fields)) for entry in entries]

    async def remove_consumer(self, group: str, consumer: str, streams: Sequence[str]) -> int:
        """Remove `consumer` from its group where it has nothing pending; return from how many."""
        return sum(await self._remove_consumer.run(self._wire, [((name,), (group, consumer)) for name in streams]))

    async def range(self, stream: str, *, after: bytes = FIRST_ID, count: int = 100) -> list[Entry]:
        """Return entries with an id above `after`, oldest first."""
        [reply] = self._wire.check(await self._ask([("XRANGE", stream, b"(" + after, b"+", "COUNT", count)]))
        return [Entry._make(entry) for entry in reply or ()]

    async def last_ids(self, streams: Sequence[str]) -> list[bytes]:
        """Return the highest id each stream ever gave out."""
        replies = await self._last_id.run(self._wire, [((name,), ()) for name in streams])
        return [FIRST_ID if reply is None else reply for reply in replies]

    async def info(self, streams: Sequence[str]) -> list[StreamInfo | None]:
        """Return the state of each stream; None for one that does not exist."""
        commands = [command for name in streams for command in (("XLEN", name), ("XINFO", "GROUPS", name))]
        replies = self._found(await self._ask(commands))
        return [
            None if groups is None else StreamInfo(name, length, [_group_info(group) for group in groups])
            for name, length, groups in zip(streams, replies[::2], replies[1::2], strict=True)
        ]

    async def scan(self, pattern: str) -> list[str]:
        """Return every stream whose key matches a glob of the server's."""
        found: dict[str, None] = {}
        cursor = b"0"
        while True:
            command = ("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_KEYS, "TYPE", "stream")
            [[cursor, keys]] = self._wire.check(await self._ask([command]))
            for key in keys:
                try:
                    found[key.decode()] = None
                except UnicodeDecodeError:
                    continue  # Not a name that hyperbus gives.
            if cursor == b"0":
                return list(found)

    async def _ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        if not commands:
            return []
        packed = pack(*commands[0]) if len(commands) == 1 else pack_all(commands)
        return await self._wire.call(packed, len(commands))

    def _found(self, replies: list[Any]) -> list[Any]:
        """Return the replies, None where the key or group is missing; raise the error of any other refusal."""
        found = [None if type(reply) is Refusal and is_missing(reply) else reply for reply in replies]
        return self._wire.check(found)

    async def _outcomes(self, future: asyncio.Future[list[Any]], count: int) -> list[str | HyperbusError]:
        try:
            replies = await future
        except NoAnswerError as error:
            uncertain = [PublishUncertain(f"the event may be stored or not: {error}") for _ in range(count)]
            return [*map(self._outcome, error.replies), *uncertain[len(error.replies) :]]
        return [reply.decode() if type(reply) is bytes else self._outcome(reply) for reply in replies]

    def _outcome(self, reply: bytes | Refusal) -> str | HyperbusError:
        if isinstance(reply, bytes):
            return reply.decode()
        error = self._append_wire.error_of(reply)
        return error if is_away(reply) or isinstance(error, BusUnavailable) else PublishRefusedError(str(error))


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _group_info(pairs: list[Any]) -> GroupInfo:
    group = dict(zip(pairs[::2], pairs[1::2], strict=True))
    return GroupInfo(
        group=group[b"name"].decode(),
        consumers=group[b"consumers"],
        pending=group[b"pending"],
        lag=group.get(b"lag"),
        last_delivered_id=group[b"last-delivered-id"],
    )
