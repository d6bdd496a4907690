"""What became of appends: replies, refusals and silence, turned into one item an entry."""

from __future__ import annotations

import asyncio
from typing import Any

from hyperbus.errors import BusUnavailable, HyperbusError, PublishRefusedError, PublishUncertain
from hyperbus.transport.appends import AppendResult
from hyperbus.transports.redis.connection.live import NoAnswerError
from hyperbus.transports.redis.connection.reconnecting import ReconnectingConnection
from hyperbus.transports.redis.protocol.replies import Refusal, is_away


async def results_of(
    connection: ReconnectingConnection, future: asyncio.Future[list[Any]], count: int
) -> list[AppendResult]:
    """Return what became of `count` appends that were sent in one call."""
    try:
        replies = await future
    except NoAnswerError as error:
        uncertain = [PublishUncertain(f"the event may be stored or not: {error}") for _ in range(count)]
        return [*(_result_of(connection, reply) for reply in error.replies), *uncertain[len(error.replies) :]]
    return [r.decode("ascii", "replace") if type(r) is bytes else _result_of(connection, r) for r in replies]


def not_sent(error: HyperbusError, count: int) -> list[AppendResult]:
    """Return what became of `count` appends that were not sent because of `error`."""
    kind = type(error) if isinstance(error, BusUnavailable) else PublishRefusedError
    return [kind(str(error)) for _ in range(count)]


def _result_of(connection: ReconnectingConnection, reply: bytes | Refusal) -> AppendResult:
    if isinstance(reply, bytes):
        return reply.decode("ascii", "replace")
    error = connection.error_of(reply)
    return error if is_away(reply) or isinstance(error, BusUnavailable) else PublishRefusedError(str(error))
