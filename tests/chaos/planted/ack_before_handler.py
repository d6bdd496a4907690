"""Entries are acked as soon as they are read, before any handler has seen them."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import redis

from hyperbus.transports.redis.reader import RedisReader

_read_group: Any = RedisReader.read_group
_server = redis.Redis.from_url(os.environ["HYPERBUS_URL"])


async def _acking(self: RedisReader, group: str, *arguments: Any, **named: Any) -> Any:
    read = await _read_group(self, group, *arguments, **named)
    with suppress(redis.RedisError):
        for stream, entries in read:
            _server.xack(stream, group, *[entry.id for entry in entries])
    return read


RedisReader.read_group = _acking  # type: ignore[method-assign]
