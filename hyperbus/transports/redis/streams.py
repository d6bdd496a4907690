"""Streams on a server: all their parts over the connections they need, and what can be seen of a stream itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hyperbus.transport import FIRST_ID, Entry, GroupInfo, StreamInfo
from hyperbus.transports.redis.appends import RedisAppends
from hyperbus.transports.redis.failures import RedisFailures
from hyperbus.transports.redis.groups import RedisGroups
from hyperbus.transports.redis.parking import RedisParking
from hyperbus.transports.redis.protocol.names import name_of
from hyperbus.transports.redis.retention import RedisRetention
from hyperbus.transports.redis.script import Script

#: Keys that a server looks at in one SCAN.
_SCAN_KEYS = 1_000

_LAST_ID = Script("last_id")


class RedisStreams(RedisAppends, RedisGroups, RedisFailures, RedisParking, RedisRetention):
    """Implements `hyperbus.transport.Streams`."""

    async def range(self, stream: str, *, after: bytes = FIRST_ID, count: int = 100) -> list[Entry]:
        """Return entries with an id above `after`, oldest first."""
        [reply] = await self._commands.run([("XRANGE", stream, b"(" + after, b"+", "COUNT", count)])
        return [Entry._make(entry) for entry in reply or ()]

    async def last_ids(self, streams: Sequence[str]) -> list[bytes]:
        """Return the highest id each stream ever gave out."""
        replies = await self._commands.run_script(_LAST_ID, [((name,), ()) for name in streams])
        return [FIRST_ID if reply is None else reply for reply in replies]

    async def info(self, streams: Sequence[str]) -> list[StreamInfo | None]:
        """Return the state of each stream; None for one that does not exist."""
        commands = [command for name in streams for command in (("XLEN", name), ("XINFO", "GROUPS", name))]
        replies = await self._commands.find(commands)
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
            [[cursor, keys]] = await self._commands.run([command])
            for key in keys:
                try:
                    found[key.decode()] = None
                except UnicodeDecodeError:
                    continue  # Not a name that hyperbus gives.
            if cursor == b"0":
                return list(found)


def _group_info(pairs: list[Any]) -> GroupInfo:
    group = dict(zip(pairs[::2], pairs[1::2], strict=True))
    return GroupInfo(
        group=name_of(group[b"name"]),
        consumers=group[b"consumers"],
        pending=group[b"pending"],
        lag=group.get(b"lag"),
        last_delivered_id=group[b"last-delivered-id"],
    )
