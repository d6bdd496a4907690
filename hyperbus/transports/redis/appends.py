"""Appending on a server: over a connection of its own, so that large batches do not hold up acks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from hyperbus.clock import Seconds
from hyperbus.errors import HyperbusError
from hyperbus.transport import Durability, NewEntry
from hyperbus.transport.appends import AppendResult, Tell
from hyperbus.transports.keys import once_key
from hyperbus.transports.redis.append_results import not_sent, results_of
from hyperbus.transports.redis.connection.live import Connection
from hyperbus.transports.redis.durability import check_durability
from hyperbus.transports.redis.part import Part
from hyperbus.transports.redis.protocol.commands import milliseconds, pack_appends
from hyperbus.transports.redis.protocol.server_facts import facts_of
from hyperbus.transports.redis.script import Script

#: Appends of one write that are answered together, where somebody wants to hear of them as soon as they are: about as
#: many as a server reads from a connection at a time.
PART = 64

_APPEND_ONCE = Script("append_once")


class RedisAppends(Part):
    """Implements `hyperbus.transport.Appends`."""

    async def append(
        self, entries: Iterable[NewEntry], *, durability: Durability | None = None, tell: Tell | None = None
    ) -> list[AppendResult]:
        """Append entries in order; return the id of each, or the error it met."""
        return await self._send(pack_appends(entries), durability, tell)

    async def append_once(
        self, entries: Sequence[tuple[NewEntry, str]], *, window: Seconds, durability: Durability | None = None
    ) -> list[AppendResult]:
        """Append (entry, event id) in order, where the stream was not given that event id within `window`."""
        lasting = milliseconds(window)
        calls = (
            ((entry.stream, once_key(entry.stream, event_id)), (lasting, entry.field, entry.body))
            for entry, event_id in entries
        )
        return await self._send(_APPEND_ONCE.pack_pieces(calls), durability, None)

    async def append_notice(self, stream: str, field: bytes, body: bytes, *, keep: int) -> str:
        """Append one entry and return its id; keep about the last `keep` entries."""
        command = ("XADD", stream, "MAXLEN", "~", max(1, keep), "*", field, body)
        [entry_id] = await self._commands.run([command])
        return str(entry_id.decode())

    async def check_durability(self, durability: Durability) -> None:
        """Check that the server can tell whether the level was reached."""
        info, appendfsync = await self._commands.replies(
            [("INFO", "server", "persistence"), ("CONFIG", "GET", "appendfsync")]
        )
        self._commands.check([info])
        check_durability(durability, facts_of(info, appendfsync), self._commands.place)

    async def _send(
        self, pieces: Iterable[tuple[bytes, int]], durability: Durability | None, tell: Tell | None
    ) -> list[AppendResult]:
        if durability is not None:
            return await self._durable_appends.append(list(pieces), durability)
        connection = self._append_connection
        results: list[AppendResult] = []
        sent: list[tuple[asyncio.Future[list[Any]], int]] = []
        live: Connection | None = None
        unsent: HyperbusError | None = None
        left = 0
        try:
            for packed, count in pieces:
                if unsent is None:
                    try:
                        # Over another connection it would overtake what is uncertain.
                        live = await connection.ready(live)
                    except HyperbusError as error:
                        unsent = error
                    else:
                        parts = [count] if tell is None else [min(PART, count - n) for n in range(0, count, PART)]
                        sent += zip(live.write_parts(packed, parts, connection.command_timeout), parts, strict=True)
                        await asyncio.sleep(0)  # some loops write only between tasks: before the next piece is made
                        continue
                left += count
            for future, count in sent:
                part = await results_of(connection, future, count)
                results += part
                if tell is not None:
                    tell(part)
        finally:
            for future, _ in sent:
                future.cancel()
        return results if unsent is None else results + not_sent(unsent, left)
