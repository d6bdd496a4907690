"""Reads on a connection of their own: how large an answer may be."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hyperbus.transports.redis.reader import READ_BYTES, RedisReader


class Connection:
    """Answers with nothing, and notes how large an answer was let be."""

    def __init__(self) -> None:
        self.bounds: list[int | None] = []

    async def call(self, _packed: bytes, *, same_era: bool, most_bytes: int | None) -> list[Any]:
        assert same_era
        self.bounds.append(most_bytes)
        return [None]


@pytest.mark.parametrize(("streams", "count", "bound"), [(1, 1, None), (2, 1, READ_BYTES), (1, 2, READ_BYTES)])
async def test_an_answer_has_a_bound_unless_it_can_be_one_entry_alone(
    streams: int, count: int, bound: int | None
) -> None:
    """One entry has to come, however large; of several, from however many streams, fewer are asked for next time."""
    connection, names = Connection(), [f"s{number}" for number in range(streams)]
    reader = RedisReader(cast("Any", connection), cast("Any", None), lambda _: None)
    assert await reader.read_group("g", "me", names, count=count, block=0) == []
    assert await reader.read(dict.fromkeys(names, b"0-0"), count=count, block=0) == []
    if streams == 1:
        assert await reader.read_pending("g", "me", names[0], after=b"0-0", count=count) == []
    assert set(connection.bounds) == {bound}
