"""A publish with `once` is appended like any other, so that its repeats are entries of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hyperbus.transport import NewEntry
from hyperbus.transports.redis.appends import RedisAppends


async def _append_again(self: RedisAppends, entries: Sequence[tuple[NewEntry, str]], **_options: Any) -> Any:
    return await self.append([entry for entry, _ in entries])


RedisAppends.append_once = _append_again  # type: ignore[method-assign]
