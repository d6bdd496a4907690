"""What every part of the streams on a server shares: its connection, and how questions are put."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hyperbus.transports.redis.connection.reconnecting import Wire
from hyperbus.transports.redis.protocol.commands import pack, pack_all
from hyperbus.transports.redis.protocol.replies import Refusal, is_missing

#: Ids that one script looks at: a server does nothing else while a script runs.
SCRIPT_IDS = 100
#: Entries that one script moves with their bytes.
SCRIPT_ENTRIES = 50


class Asking:
    """Commands and their replies over one connection."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def _ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        if not commands:
            return []
        packed = pack(*commands[0]) if len(commands) == 1 else pack_all(commands)
        return await self._wire.call(packed, len(commands))

    def _found(self, replies: list[Any]) -> list[Any]:
        """Return the replies, None where the key or group is missing; raise the error of any other refusal."""
        found = [None if type(reply) is Refusal and is_missing(reply) else reply for reply in replies]
        return self._wire.check(found)


def parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Cut a sequence into pieces of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


def flags(replies: list[Any]) -> list[bool]:
    """Read the replies of scripts that each return a list of 1 or 0, one after the other."""
    return [bool(flag) for reply in replies for flag in reply]


def words_of(items: Sequence[Sequence[Any]]) -> Iterator[Any]:
    """Write pairs or triples one after the other."""
    return (word for item in items for word in item)
