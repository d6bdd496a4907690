"""How commands and scripts are put to a server: the one place that knows which connection takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hyperbus.transports.redis.connection.reconnecting import ReconnectingConnection
from hyperbus.transports.redis.protocol.commands import pack, pack_all
from hyperbus.transports.redis.protocol.replies import Refusal, is_missing
from hyperbus.transports.redis.script import Arguments, Script


class CommandRunner:
    """Commands and scripts, several in one round trip, and their replies.

    What has to know the live connection under it does not come here: appends, whose order a second connection would
    break, and reads that wait.
    """

    def __init__(self, connection: ReconnectingConnection) -> None:
        self._connection = connection

    @property
    def place(self) -> str:
        """Where the server is, for people."""
        return self._connection.place

    async def replies(self, commands: Sequence[tuple[Any, ...]], *, same_era: bool = False) -> list[Any]:
        """Run commands; return their replies, error replies among them as `Refusal`."""
        if not commands:
            return []
        packed = pack(*commands[0]) if len(commands) == 1 else pack_all(commands)
        return await self._connection.call(packed, len(commands), same_era=same_era)

    async def run(self, commands: Sequence[tuple[Any, ...]], *, same_era: bool = False) -> list[Any]:
        """Run commands; return their replies. `same_era`: not where the server turns out to be another one.

        Raises:
            HyperbusError: one of them was refused.
        """
        return self._connection.check(await self.replies(commands, same_era=same_era))

    async def run_one(self, *words: str | bytes | float) -> Any:
        """Run one command; return its reply.

        Raises:
            HyperbusError: it was refused.
        """
        [reply] = self._connection.check(await self._connection.call(pack(*words)))
        return reply

    async def find(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run commands; return their replies, None where the key or the group is missing.

        Raises:
            HyperbusError: one of them was refused for another reason.
        """
        replies = await self.replies(commands)
        return self._connection.check(
            [None if type(reply) is Refusal and is_missing(reply) else reply for reply in replies]
        )

    async def count(self, commands: Sequence[tuple[Any, ...]]) -> list[int]:
        """Run commands that count something; return their counts, 0 where a key holds something else.

        Raises:
            HyperbusError: one of them was refused for another reason.
        """
        replies = await self.replies(commands)
        return self._connection.check(
            [0 if type(reply) is Refusal and str(reply).startswith("WRONGTYPE") else reply for reply in replies]
        )

    async def run_script(self, script: Script, calls: Sequence[Arguments], *, same_era: bool = False) -> list[Any]:
        """Run a script once for each of `calls`, in one round trip; return what each returned. See `run`.

        Raises:
            HyperbusError: one of them was refused.
        """
        if not calls:
            return []
        replies = await self._connection.call(script.pack(calls), len(calls), same_era=same_era)
        unknown = [i for i, reply in enumerate(replies) if type(reply) is Refusal and str(reply).startswith("NOSCRIPT")]
        if unknown:
            # A server that was restarted or failed over has lost its scripts.
            packed = script.pack_teaching([calls[i] for i in unknown])
            again = await self._connection.call(packed, len(unknown), same_era=same_era)
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return self._connection.check(replies)

    def check(self, replies: list[Any]) -> list[Any]:
        """Return the replies, or raise the error of the first refusal among them."""
        return self._connection.check(replies)
