"""Entries that another program cut or deleted before a group had read them: noticed by who reads, told, and counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hyperbus import Bus, Event, consumer
from hyperbus.event.data import EventData
from hyperbus.event.retention import Keep
from hyperbus.settings import Settings
from hyperbus.signals import CutUnread
from tests.recorder import Recorder, eventually
from tests.servers import Server
from tests.unit.runtime.running import body, unique

WITHIN = 20.0
#: How long a handler is at work: the reader, which has no room, gets no further meanwhile.
HELD_UP = 0.2


class Place:
    """A consumer of one type, which can be held up and stopped, and another program."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.kind = unique()
        self.prefix = unique("p")
        self.stream = f"{self.prefix}:{self.kind}"
        self.recorder = Recorder()
        self.seen: list[int] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.entered = 0
        settings = Settings(prefix=self.prefix, prefetch=10, heartbeat_ttl=0.4, drain_timeout=0.5)
        self.bus = Bus(server.url, settings=settings, listeners=[self.recorder])

        @consumer(group="g", types=[self.kind])
        async def handler(event: Event) -> None:
            self.entered += 1
            await self.go_on.wait()
            self.seen.append(event.data["n"])

        self.handler = handler

    async def command(self, *words: Any) -> Any:
        return await asyncio.to_thread(self.server.command, *words)

    async def add(self, *numbers: int, options: tuple[Any, ...] = ()) -> list[bytes]:
        return [await self.command("XADD", self.stream, *options, "*", "data", body(n, self.kind)) for n in numbers]

    @property
    def lost(self) -> int:
        return sum(told.count for told in self.recorder.of(CutUnread))

    async def settled(self) -> None:
        """Wait until everything that is there was handled and acked."""
        async with asyncio.timeout(WITHIN):
            while True:
                (info,) = await self.bus.transport.streams.info([self.stream])
                (last,) = await self.bus.transport.streams.last_ids([self.stream])
                if info is not None and info.groups[0].pending == 0 and info.groups[0].last_delivered_id == last:
                    return
                await asyncio.sleep(0.02)


@asynccontextmanager
async def held_up(server: Server) -> AsyncGenerator[Place]:
    """A worker that has read what it may hold, and handles nothing until it may go on."""
    place = Place(server)
    async with place.bus, place.bus.running(place.handler):
        place.go_on.clear()
        await place.add(*range(40))
        await eventually(lambda: place.entered == 1, within=WITHIN)
        yield place


@pytest.mark.parametrize("words", [("XADD", "MAXLEN", "50"), ("XTRIM", "MAXLEN", "50"), ("XTRIM", "MINID", "last")])
async def test_what_another_program_trims_unread_is_counted(server: Server, words: tuple[str, ...]) -> None:
    """Each entry that the worker never got, once; by the group, as cut elsewhere."""
    async with held_up(server) as place:
        if words[0] == "XADD":
            await place.add(*range(40, 200), options=("MAXLEN", 50))
        else:
            ids = await place.add(*range(40, 200))
            await place.command("XTRIM", place.stream, words[1], ids[-50] if words[2] == "last" else words[2])
        await asyncio.sleep(HELD_UP)
        place.go_on.set()
        await place.settled()
        await eventually(lambda: place.lost and place.lost + len(place.seen) == 200, within=WITHIN)
        assert {(told.group, told.stream, told.reason) for told in place.recorder.of(CutUnread)} == {
            ("g", place.stream, "elsewhere")
        }


async def test_what_another_program_deletes_unread_is_counted(server: Server) -> None:
    """While it still waits to be read."""
    async with held_up(server) as place:
        ids = await place.add(*range(40, 60))
        await place.command("XDEL", place.stream, *ids[5:12])
        await eventually(lambda: place.lost == 7, within=WITHIN)
        place.go_on.set()
        await place.settled()
        assert len(place.seen) == 53
        await asyncio.sleep(0)
        assert place.lost == 7


async def test_what_was_cut_while_nobody_read_is_told_by_who_reads_next_and_once(server: Server) -> None:
    """A worker that starts again tells it no second time."""
    place = Place(server)
    async with place.bus:
        async with place.bus.running(place.handler):
            await place.add(*range(10))
            await eventually(lambda: len(place.seen) == 10, within=WITHIN)
            await place.settled()
        await place.add(*range(10, 200), options=("MAXLEN", 50))
        for _ in range(2):
            async with place.bus.running(place.handler):
                await eventually(lambda: len(place.seen) == 60, within=WITHIN)
                await eventually(lambda: place.lost == 140, within=WITHIN)
        assert [told.count for told in place.recorder.of(CutUnread)] == [140]


async def test_what_was_read_may_go_and_nobody_is_told(server: Server) -> None:
    """Neither trimmed nor deleted, nor what lay there before the group was made; on every make of server."""
    place = Place(server)
    await place.add(*range(100, 120))
    await place.command("XTRIM", place.stream, "MAXLEN", 10)
    async with place.bus, place.bus.running(place.handler):
        await eventually(lambda: len(place.seen) == 10, within=WITHIN)
        for start in range(0, 100, 20):
            ids = await place.add(*range(start, start + 20))
            await eventually(lambda start=start: len(place.seen) == 30 + start, within=WITHIN)  # type: ignore[misc]
            await place.settled()
            await place.command("XDEL", place.stream, ids[3], ids[-1])
            await place.command("XTRIM", place.stream, "MAXLEN", 5)
        # a look sees what one second before saw too
        await asyncio.sleep(2.5)
        assert place.recorder.of(CutUnread) == []


async def test_what_retention_cuts_itself_is_counted_once(server: Server) -> None:
    """As the hard cap that it was told to keep."""
    kind = unique()

    class Capped(EventData, type=kind, retention=Keep(entries=20, hard=True)):  # type: ignore[call-arg]
        n: int

    recorder, seen, go_on = Recorder(), [], asyncio.Event()

    @consumer(group="g")
    async def handler(event: Event[Capped]) -> None:
        await go_on.wait()
        seen.append(event.data.n)

    settings = Settings(prefix=unique("p"), prefetch=5, heartbeat_ttl=0.4, drain_timeout=0.5)
    async with Bus(server.url, settings=settings, listeners=[recorder]) as bus, bus.running(handler):
        await bus.publish_many([Capped(n=n) for n in range(200)])
        await recorder.wait_for_one(CutUnread, within=WITHIN)
        go_on.set()
        await eventually(lambda: 199 in seen, within=WITHIN)
        await asyncio.sleep(2.5)  # two looks
    assert {told.reason for told in recorder.of(CutUnread)} == {"hard cap"}
