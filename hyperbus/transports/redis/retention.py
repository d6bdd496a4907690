"""How much a server keeps: checkpoints of groups, the length and weight of streams, and cutting them."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbus.transport import Position, id_after, id_before, is_id
from hyperbus.transports.keys import checkpoint_key
from hyperbus.transports.redis.groups import KEPT
from hyperbus.transports.redis.part import Part
from hyperbus.transports.redis.protocol.names import name_of
from hyperbus.transports.redis.protocol.replies import Refusal
from hyperbus.transports.redis.protocol.server_facts import lines_of
from hyperbus.transports.redis.script import Script

#: A server cuts whole blocks of entries, so that a lower limit might never be enough for one.
_LEAST_CUT = 1_000
#: Blocks that are weighed to guess the weight of a stream.
_SAMPLES = 5

_FLOORS = Script("floors")
_SAVE_CHECKPOINT = Script("save_checkpoint")
_TRIM = Script("trim")
_OLDEST = Script("oldest")
_REMOVE_ENDED = Script("remove_ended")
_POSITIONS = Script("positions")
_COUNT_BETWEEN = Script("count_between")


class RedisRetention(Part):
    """Implements `hyperbus.transport.Retention`."""

    async def floors(self, stream: str) -> dict[str, bytes]:
        """Return the floor of every group on a stream."""
        [reply] = await self._commands.run_script(_FLOORS, [((stream,), ())])
        return {name_of(group): id_before(oldest) if oldest else delivered for group, oldest, delivered in reply}

    async def save_checkpoints(self, groups: Sequence[tuple[str, str]]) -> list[bytes | None]:
        """Store the floor of each (stream, group) as its checkpoint, and return the checkpoint."""
        calls = [((stream, checkpoint_key(stream, group)), (group,)) for stream, group in groups]
        return await self._commands.run_script(_SAVE_CHECKPOINT, calls)

    async def checkpoints(self, groups: Sequence[tuple[str, str]]) -> list[bytes | None]:
        """Return the checkpoint of each (stream, group); None where none was saved."""
        # MGET, unlike GET, has nothing for a key of another kind
        replies = await self._commands.run([("MGET", checkpoint_key(*pair)) for pair in groups])
        return [saved if saved is not None and is_id(saved) else None for (saved,) in replies]

    async def trim(self, stream: str, *, up_to: bytes, limit: int) -> int:
        """Delete entries with an id up to `up_to`, oldest first; return how many."""
        arguments = (id_after(up_to), max(limit, _LEAST_CUT))
        [cut] = await self._commands.run_script(_TRIM, [((stream,), arguments)])
        return int(cut)

    async def remove_ended(self, stream: str, last_id: bytes, groups: Sequence[str]) -> bool:
        """Remove a stream in which nothing is left, with all that is kept for its groups but their dead letters."""
        keys = (stream, *(key_of(stream, group) for group in groups for key_of in KEPT))
        [gone] = await self._commands.run_script(_REMOVE_ENDED, [(keys, (last_id,))])
        return bool(gone)

    async def oldest(self, streams: Sequence[str]) -> list[bytes | None]:
        """Return the id of the oldest entry of each stream; None where there is none."""
        return await self._commands.run_script(_OLDEST, [((name,), ()) for name in streams])

    async def count_between(self, stream: str, after: bytes, up_to: bytes, limit: int) -> int:
        """Count entries above `after`, up to `up_to`, and no further than `limit`."""
        total = 0
        while total < limit:
            arguments = (after, up_to, limit - total)
            [[counted, after]] = await self._commands.run_script(_COUNT_BETWEEN, [((stream,), arguments)])
            total += counted
            if not after:
                break
        return total

    async def positions(self, group: str, streams: Sequence[str]) -> list[Position | None]:
        """Return how far a group is on each stream; None where the stream or the group is missing."""
        replies = await self._commands.run_script(_POSITIONS, [((name,), (group,)) for name in streams])
        return [None if reply is None else _position(*reply) for reply in replies]

    async def stream_bytes(self, streams: Sequence[str]) -> list[int]:
        """Return about how many bytes each stream takes, its groups included; 0 for a missing one."""
        commands = [("MEMORY", "USAGE", name, "SAMPLES", _SAMPLES) for name in streams]
        return [weight or 0 for weight in await self._commands.run(commands)]

    async def eviction_policy(self) -> tuple[str, int] | None:
        """Return what the server does at its memory limit, and the limit in bytes; None: it does not tell."""
        [info] = await self._commands.replies([("INFO", "memory")])
        if type(info) is Refusal and str(info).startswith(("NOPERM", "ERR")):
            return None
        self._commands.check([info])
        facts = lines_of(info)
        policy, limit = facts.get("maxmemory_policy"), facts.get("maxmemory", "")
        return (policy, int(limit)) if policy and limit.isdecimal() else None


def _position(
    added: int, length: int, first: bytes, last: bytes, deleted: bytes, read: int, delivered: bytes
) -> Position:
    return Position(added, length, first or None, last, deleted, None if read < 0 else read, delivered)
