"""Appends that wait until replicas or the disk have them, on a connection where they hold up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hyperbus.errors import DurabilityUnsupported, HyperbusError, NotDurable
from hyperbus.transport import Durability
from hyperbus.transport.appends import AppendResult
from hyperbus.transports.redis.append_results import not_sent, results_of
from hyperbus.transports.redis.connection.live import NoAnswerError
from hyperbus.transports.redis.connection.reconnecting import ReconnectingConnection
from hyperbus.transports.redis.protocol.commands import milliseconds, pack_all
from hyperbus.transports.redis.protocol.replies import Refusal
from hyperbus.transports.redis.protocol.server_facts import ServerFacts

#: Redis before this answered WAITAOF too early.
_REDIS_FLOOR = (7, 4, 3)


class DurableAppends:
    """Sends appends and then WAIT or WAITAOF, one batch after the other.

    A connection that waits does nothing else, and the time limit of a call runs from when it is written: a second
    batch on the way would run out of time behind the first. So batches queue here.
    """

    def __init__(self, connection: ReconnectingConnection) -> None:
        self._connection = connection
        self._lock = asyncio.Lock()

    async def append(self, pieces: Sequence[tuple[bytes, int]], durability: Durability) -> list[AppendResult]:
        """Send packed appends, each with its number of commands; return what became of each."""
        if not pieces:
            return []
        async with self._lock:
            try:
                return await self._append(pieces, durability)
            except asyncio.CancelledError:
                # The server would make the next batch wait for what nobody wants to know any more.
                self._connection.drop("the append was cancelled")
                raise

    async def _append(self, pieces: Sequence[tuple[bytes, int]], durability: Durability) -> list[AppendResult]:
        connection = self._connection
        sent: list[tuple[asyncio.Future[list[Any]], int]] = []
        waiting: asyncio.Future[list[Any]] | None = None
        unsent: HyperbusError | None = None
        results: list[AppendResult] = []
        try:
            try:
                # WAIT speaks of what its own connection wrote: on a new one it would say yes at once.
                live = await connection.ready()
                for packed, count in pieces:
                    await connection.ready(live)
                    sent.append((live.write(packed, count, connection.command_timeout), count))
                await connection.ready(live)
                waits = _waits(durability)
                patience = connection.command_timeout + durability.timeout * len(waits)
                waiting = live.write(pack_all(waits), len(waits), patience)
            except HyperbusError as error:
                unsent = error
            for future, count in sent:
                results += await results_of(connection, future, count)
            shortfall = "it is not known how safely" if waiting is None else await _shortfall(waiting, durability)
        finally:
            for future in [future for future, _ in sent] + ([waiting] if waiting else []):
                future.cancel()
        if shortfall:
            results = [NotDurable(result, shortfall) if isinstance(result, str) else result for result in results]
        if unsent is not None:
            results += not_sent(unsent, sum(count for _, count in pieces) - len(results))
        return results


def check_durability(durability: Durability, facts: ServerFacts, place: str) -> None:
    """Tell whether a server's answer to WAITAOF can be trusted.

    Raises:
        DurabilityUnsupported: it cannot.
    """
    if not durability.disk:
        return
    if facts.is_valkey:
        if not (facts.appendonly and facts.appendfsync == "always"):
            found = f"appendonly {'yes' if facts.appendonly else 'no'}, appendfsync {facts.appendfsync or 'unknown'}"
            raise DurabilityUnsupported(
                f'durability="disk" needs `appendonly yes` and `appendfsync always` on Valkey, as with any other '
                f"appendfsync its WAITAOF answers before the disk has anything; {place} has {found}"
            )
        return
    if facts.numbers < _REDIS_FLOOR:
        raise DurabilityUnsupported(
            f'durability="disk" needs Redis 7.4.3 or newer, as older ones have no WAITAOF, or one that answers too '
            f"early; {place} is Redis {facts.version}"
        )
    if not facts.appendonly:
        raise DurabilityUnsupported(f'durability="disk" needs `appendonly yes`; {place} keeps nothing on its disk')


def _waits(durability: Durability) -> list[tuple[Any, ...]]:
    timeout = milliseconds(durability.timeout)
    waits: list[tuple[Any, ...]] = []
    if durability.replicas:
        waits.append(("WAIT", durability.replicas, timeout))
    if durability.disk:
        waits.append(("WAITAOF", 1, 0, timeout))
    return waits


async def _shortfall(waiting: asyncio.Future[list[Any]], durability: Durability) -> str:
    """Say what is missing to the level that was asked for; "" when it was reached."""
    try:
        replies = iter(await waiting)
    except NoAnswerError as error:
        return f"it is not known how safely: {error}"
    if durability.replicas:
        reply = next(replies)
        if type(reply) is Refusal:
            return f"the server does not wait for replicas: {reply}"
        if reply < durability.replicas:
            return f"only {reply} of {durability.replicas} replicas had it after {durability.timeout:g} s"
    if durability.disk:
        reply = next(replies)
        if type(reply) is Refusal:
            return f"the server does not wait for its disk: {reply}"
        if reply[0] < 1:
            return f"it was not on the disk after {durability.timeout:g} s"
    return ""
