"""A group that was lost is created again at the end of its stream, so what it had not read is skipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hyperbus.transports.redis.groups import RedisGroups

_create_groups: Any = RedisGroups.create_groups


async def _at_the_end(self: RedisGroups, groups: Sequence[tuple[str, str, bytes]]) -> list[bool]:
    created: list[bool] = await _create_groups(self, [(stream, group, b"$") for stream, group, _ in groups])
    return created


RedisGroups.create_groups = _at_the_end  # type: ignore[method-assign]
