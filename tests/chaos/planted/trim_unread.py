"""Retention takes every group to be done with everything, so it cuts what they have yet to handle."""

from __future__ import annotations

from typing import Any

from hyperbus.transports.redis.retention import RedisRetention

_floors: Any = RedisRetention.floors


async def _all_done(self: RedisRetention, stream: str) -> dict[str, bytes]:
    floors: dict[str, bytes] = await _floors(self, stream)
    return dict.fromkeys(floors, b"18446744073709551615-18446744073709551615")


RedisRetention.floors = _all_done  # type: ignore[method-assign]
