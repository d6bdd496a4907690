"""An entry of thousands of fields that is no event becomes a dead letter, and is not lost."""

from __future__ import annotations

import asyncio

import pytest

from hyperbus import Bus, Event, consumer
from hyperbus.settings import Settings
from tests.recorder import eventually
from tests.servers import Server
from tests.unit.runtime.running import unique


@pytest.mark.parametrize("count", [5_000, 20_000])
async def test_an_entry_of_many_fields_becomes_a_dead_letter(server: Server, count: int) -> None:
    """With all of them, and its neighbours are handled."""
    kind, seen = unique(), list[int]()

    @consumer(group="g", types=[kind])
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    stream, fields = f"events:{kind}", [part for n in range(count) for part in (b"f%d" % n, b"\xff")]
    server.command("XADD", stream, "*", *fields)
    async with Bus(settings=Settings(url=server.url)) as bus, bus.running(handler):
        await bus.publish(Event(type=kind, data={"n": 1}))
        await eventually(lambda: seen == [1])
        async with asyncio.timeout(20):
            while not (letters := await bus.transport.streams.dead_letters(stream, "g")):
                await asyncio.sleep(0.01)
        await eventually(lambda: server.command("XPENDING", stream, "g")["pending"] == 0)
    assert [(letter.reason, letter.fields) for _, letter in letters] == [("undecodable", fields)]
    ((_, stored),) = server.command("XRANGE", f"{{{stream}}}:dead:g", "-", "+")
    assert list(stored)[:count] == fields[::2], "as they were, for everybody who looks"


async def test_dead_letters_that_have_no_ids_left_cost_no_entry(server: Server) -> None:
    """The stream of the letters has given out its last id: the entry stays pending."""
    kind, last = unique(), "18446744073709551615-18446744073709551615"

    @consumer(group="g", types=[kind])
    async def handler(event: Event) -> None: ...

    stream, dead = f"events:{kind}", f"{{events:{kind}}}:dead:g"
    server.command("XADD", dead, last, "a", "b")
    server.command("XADD", stream, "*", "no", "event")
    async with Bus(settings=Settings(url=server.url)) as bus, bus.running(handler):
        await eventually(lambda: (server.command("XINFO", "GROUPS", stream) or [{}])[0].get(b"pending") == 1)
        await asyncio.sleep(0.2)  # it was tried, and refused
        assert server.command("XPENDING", stream, "g")["pending"] == 1
        server.command("DEL", dead)
        await eventually(lambda: server.command("XPENDING", stream, "g")["pending"] == 0, within=20)
    assert server.command("XLEN", dead) == 1
