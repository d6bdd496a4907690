"""How many workers died while they held an entry: what is forgotten of it, and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from hyperbus.clock import SystemClock
from hyperbus.errors import ServerError
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import Received
from hyperbus.runtime.poison.deaths import Deaths
from hyperbus.signals import Announcer


class Server:
    """Forgets deaths, but in one stream."""

    def __init__(self, refuses: str) -> None:
        self.refuses = refuses
        self.forgotten: dict[str, list[bytes]] = {}

    async def forget_deaths(self, stream: str, _group: str, ids: Sequence[bytes]) -> None:
        if stream == self.refuses:
            raise ServerError("no")
        self.forgotten[stream] = list(ids)


@pytest.mark.parametrize("odd", ["a", "b", "c"])
async def test_a_stream_that_is_refused_keeps_no_other_from_being_forgotten(odd: str) -> None:
    """Counts that stay would be held against entries whose ids are used again."""
    server, inbox = Server(odd), Inbox(100, 100_000)
    deaths = Deaths(Member("g", "me", cast("Any", server), SystemClock(), Announcer()), inbox)
    items = [Received(name, "t", b"1-0", [], 0, 0.0, deaths=1) for name in "abc"]
    for item in items:
        inbox.put(item.stream, [item])
    deaths.keep(items)
    await deaths.forget_ended()
    assert server.forgotten == {}
    for item in items:
        inbox.release(item.stream, [item.id])
    await deaths.forget_ended()
    assert server.forgotten == {name: [b"1-0"] for name in "abc" if name != odd}
