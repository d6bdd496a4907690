"""Records on a server: strings with a lifetime, and sorted sets. Names are relative to the prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from hyperbus.clock import Seconds
from hyperbus.transports.keys import record_key
from hyperbus.transports.redis.command_runner import CommandRunner
from hyperbus.transports.redis.protocol.commands import milliseconds
from hyperbus.transports.redis.script import SCRIPT_IDS, Script, slices

_COMPARE_AND_SET = Script("compare_and_set")
_TOUCH_MEMBERS = Script("touch_members")
_REMOVE_MEMBERS = Script("remove_members")
#: What PEXPIRETIME says of a key that has no end, and of one that is not there.
_STAYS, _GONE = -1, -2


class RedisRecords:
    """Implements `hyperbus.transport.Records`."""

    def __init__(self, commands: CommandRunner, prefix: str) -> None:
        self._commands = commands
        self._prefix = prefix

    async def put(self, name: str, value: bytes, *, ttl: Seconds | None = None) -> None:
        """Store a value, for `ttl` seconds if given."""
        await self._commands.run_one("SET", self._key(name), value, *(() if ttl is None else ("PX", milliseconds(ttl))))

    async def renew(self, names: Sequence[str], *, ttl: Seconds) -> list[bool]:
        """Let records live for another `ttl` seconds; False for one that is gone."""
        if not names:
            return []
        commands = [("PEXPIRE", self._key(name), milliseconds(ttl)) for name in names]
        return [bool(reply) for reply in await self._commands.run(commands)]

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the values; None for a record that is gone, or that is a set."""
        if not names:
            return []
        values: list[bytes | None] = await self._commands.run_one("MGET", *map(self._key, names))
        return values

    async def lifetimes(self, names: Sequence[str]) -> tuple[float, list[float | None]]:
        """Return the server's time, and when each record ends; inf for one that stays, None for one that is gone."""
        commands = [("TIME",), *(("PEXPIRETIME", self._key(name)) for name in names)]
        time, *ends = await self._commands.run(commands)
        return _seconds(time), [None if end == _GONE else inf if end == _STAYS else end / 1000 for end in ends]

    async def delete(self, names: Sequence[str]) -> int:
        """Delete records; return how many there were."""
        return int(await self._commands.run_one("DEL", *map(self._key, names))) if names else 0

    async def compare_and_set(
        self, name: str, expected: bytes | None, value: bytes | None, *, ttl: Seconds | None = None
    ) -> bool:
        """Store `value` if the record holds `expected`."""
        arguments = (
            *(("0", "") if expected is None else ("1", expected)),
            *(("0", "") if value is None else ("1", value)),
            "" if ttl is None else milliseconds(ttl),
        )
        [reply] = await self._commands.run_script(_COMPARE_AND_SET, [((self._key(name),), arguments)])
        return bool(reply)

    async def add_members(self, name: str, members: Mapping[str, float]) -> int:
        """Add members with their times; those that are there keep theirs."""
        if not members:
            return 0
        words = (word for member, time in members.items() for word in (repr(time), member))
        return int(await self._commands.run_one("ZADD", self._key(name), "NX", *words))

    async def members(
        self,
        name: str,
        *,
        minimum: float = float("-inf"),
        maximum: float = float("inf"),
        count: int = 1000,
        offset: int = 0,
        newest: bool = False,
    ) -> list[tuple[str, float]]:
        """Return members whose time lies between the two, earliest first."""
        low, high = repr(minimum), repr(maximum)
        command, first, last = ("ZREVRANGEBYSCORE", high, low) if newest else ("ZRANGEBYSCORE", low, high)
        reply = await self._commands.run_one(
            command, self._key(name), first, last, "WITHSCORES", "LIMIT", offset, count
        )
        return [
            (member, float(time))
            for name_read, time in zip(reply[::2], reply[1::2], strict=True)
            if (member := _text(name_read)) is not None
        ]

    async def touch_members(self, name: str, members: Sequence[str], quiet: Seconds) -> int:
        """Add members with the server's time now, or give it to those that are there."""
        calls = [((self._key(name),), (repr(quiet), *part)) for part in slices(members, SCRIPT_IDS)]
        return sum(await self._commands.run_script(_TOUCH_MEMBERS, calls))

    async def remove_members(self, name: str, members: Sequence[str], *, maximum: float = float("inf")) -> int:
        """Remove those of these members whose time is not above `maximum`; return how many there were."""
        if maximum == float("inf"):
            return int(await self._commands.run_one("ZREM", self._key(name), *members)) if members else 0
        calls = [((self._key(name),), (repr(maximum), *part)) for part in slices(members, SCRIPT_IDS)]
        return sum(await self._commands.run_script(_REMOVE_MEMBERS, calls))

    async def server_time(self) -> float:
        """Return the server's clock, seconds since the epoch."""
        return _seconds(await self._commands.run_one("TIME"))

    def _key(self, name: str) -> str:
        return record_key(self._prefix, name)


def _text(member: bytes) -> str | None:
    try:
        return member.decode()
    except UnicodeDecodeError:
        return None


def _seconds(time: Sequence[bytes]) -> float:
    """Read the reply to TIME."""
    seconds, microseconds = time
    return int(seconds) + int(microseconds) / 1_000_000
