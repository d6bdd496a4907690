"""A dead letter is written without asking whether the entry is still this worker's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis

from hyperbus.transport import DeadLetter
from hyperbus.transports.dead_letters import to_fields
from hyperbus.transports.keys import dead_letter_key
from hyperbus.transports.redis.failures import RedisFailures

_server = redis.Redis.from_url(os.environ["HYPERBUS_URL"])
_execute: Any = _server.execute_command


async def _careless(
    _self: RedisFailures, stream: str, group: str, consumer: str, letters: Sequence[DeadLetter]
) -> list[bool]:
    with suppress(redis.RedisError):
        for letter in letters:
            _execute("XADD", dead_letter_key(stream, group), "*", *to_fields(letter, consumer))
            _server.xack(stream, group, letter.entry_id)
    return [True] * len(letters)


RedisFailures.dead_letter = _careless  # type: ignore[method-assign]
