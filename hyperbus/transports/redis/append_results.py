"""What became of appends: replies, refusals and silence, turned into one item an entry."""

from __future__ import annotations

import asyncio
from typing import Any

from hyperbus.errors import BusUnavailable, HyperbusError, PublishRefusedError, PublishUncertain
from hyperbus.transports.redis.connection.reconnecting import NoAnswerError, Wire
from hyperbus.transports.redis.protocol.replies import Refusal, is_away

Outcome = str | HyperbusError


async def outcomes(wire: Wire, future: asyncio.Future[list[Any]], count: int) -> list[Outcome]:
    """Return what became of `count` appends that were sent in one call."""
    try:
        replies = await future
    except NoAnswerError as error:
        uncertain = [PublishUncertain(f"the event may be stored or not: {error}") for _ in range(count)]
        return [*(_outcome(wire, reply) for reply in error.replies), *uncertain[len(error.replies) :]]
    return [reply.decode() if type(reply) is bytes else _outcome(wire, reply) for reply in replies]


def not_sent(error: HyperbusError, count: int) -> list[Outcome]:
    """Return what became of `count` appends that were not sent because of `error`."""
    kind = type(error) if isinstance(error, BusUnavailable) else PublishRefusedError
    return [kind(str(error)) for _ in range(count)]


def _outcome(wire: Wire, reply: bytes | Refusal) -> Outcome:
    if isinstance(reply, bytes):
        return reply.decode()
    error = wire.error_of(reply)
    return error if is_away(reply) or isinstance(error, BusUnavailable) else PublishRefusedError(str(error))
