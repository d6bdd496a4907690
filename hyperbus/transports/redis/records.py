"""Records on a server: strings with a lifetime, and sorted sets. Names are relative to the prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hyperbus.clock import Seconds
from hyperbus.transports.keys import record_key
from hyperbus.transports.redis.connection.reconnecting import Wire
from hyperbus.transports.redis.protocol.commands import milliseconds, pack, pack_all
from hyperbus.transports.redis.script import Script


class RedisRecords:
    """Implements `hyperbus.transport.Records`."""

    def __init__(self, wire: Wire, prefix: str) -> None:
        self._wire = wire
        self._prefix = prefix
        self._compare_and_set = Script("compare_and_set")

    async def put(self, name: str, value: bytes, *, ttl: Seconds | None = None) -> None:
        """Store a value, for `ttl` seconds if given."""
        await self._ask("SET", self._key(name), value, *(() if ttl is None else ("PX", milliseconds(ttl))))

    async def renew(self, names: Sequence[str], *, ttl: Seconds) -> list[bool]:
        """Let records live for another `ttl` seconds; False for one that is gone."""
        if not names:
            return []
        packed = pack_all([("PEXPIRE", self._key(name), milliseconds(ttl)) for name in names])
        return [bool(reply) for reply in self._wire.check(await self._wire.call(packed, len(names)))]

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the values; None for a record that is gone, or that is a set."""
        if not names:
            return []
        values: list[bytes | None] = await self._ask("MGET", *map(self._key, names))
        return values

    async def delete(self, names: Sequence[str]) -> int:
        """Delete records; return how many there were."""
        return int(await self._ask("DEL", *map(self._key, names))) if names else 0

    async def compare_and_set(
        self, name: str, expected: bytes | None, value: bytes | None, *, ttl: Seconds | None = None
    ) -> bool:
        """Store `value` if the record holds `expected`."""
        arguments = (
            *(("0", "") if expected is None else ("1", expected)),
            *(("0", "") if value is None else ("1", value)),
            "" if ttl is None else milliseconds(ttl),
        )
        [reply] = await self._compare_and_set.run(self._wire, [((self._key(name),), arguments)])
        return bool(reply)

    async def add_members(self, name: str, members: Mapping[str, float]) -> int:
        """Add members with their times; those that are there keep theirs."""
        if not members:
            return 0
        words = (word for member, time in members.items() for word in (repr(time), member))
        return int(await self._ask("ZADD", self._key(name), "NX", *words))

    async def members(
        self, name: str, *, minimum: float = float("-inf"), maximum: float = float("inf"), count: int = 1000
    ) -> list[tuple[str, float]]:
        """Return members whose time lies between the two, earliest first."""
        bounds = (repr(minimum), repr(maximum), "WITHSCORES", "LIMIT", 0, count)
        reply = await self._ask("ZRANGEBYSCORE", self._key(name), *bounds)
        return [(member.decode(), float(time)) for member, time in zip(reply[::2], reply[1::2], strict=True)]

    async def remove_members(self, name: str, members: Sequence[str]) -> int:
        """Remove members; return how many there were."""
        return int(await self._ask("ZREM", self._key(name), *members)) if members else 0

    async def server_time(self) -> float:
        """Return the server's clock, seconds since the epoch."""
        seconds, microseconds = await self._ask("TIME")
        return int(seconds) + int(microseconds) / 1_000_000

    async def _ask(self, *words: str | bytes | int) -> Any:
        [reply] = self._wire.check(await self._wire.call(pack(*words)))
        return reply

    def _key(self, name: str) -> str:
        return record_key(self._prefix, name)
