"""Bytes that are no text, or no record, where every publisher may write: they harm nobody, and end nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hyperbus import Backoff, Bus, Event, Retry, consumer
from hyperbus.settings import Settings
from tests.recorder import eventually
from tests.servers import Server
from tests.unit.runtime.running import unique

#: What takes its time may take so long on a busy machine.
WITHIN = 20.0


class Place:
    """A bus with a prefix of its own on a shared server."""

    def __init__(self, server: Server, **settings: Any) -> None:
        self.server = server
        self.prefix = unique("p")
        chosen = {"prefix": self.prefix, "scan_interval": 0.5, "heartbeat_ttl": 0.4, "drain_timeout": 1.0, **settings}
        self.bus = Bus(server.url, settings=Settings(**chosen))
        self.seen: list[Any] = []
        self.tasks: set[str] = set()

    def record(self, name: str) -> str:
        return f"hyperbus:{self.prefix}:{name}"

    async def command(self, *words: Any) -> Any:
        return await asyncio.to_thread(self.server.command, *words)

    async def born_and_handled(self, name: str | None = None) -> None:
        """Publish into a stream that is new, and wait until a glob consumer has it."""
        event = Event(type=f"born.{name or unique()}", data={"n": len(self.seen)})
        await self.bus.publish(event)
        await eventually(lambda: event.id in self.seen, within=WITHIN)


@asynccontextmanager
async def reading(server: Server, **settings: Any) -> AsyncGenerator[Place]:
    """Run a consumer of everything; see that none of the process's tasks has ended at the end."""
    place = Place(server, **settings)

    @consumer(group="all", types=["*"])
    async def handler(event: Event) -> None:
        place.seen.append(event.id)

    async with place.bus, place.bus.running(handler):
        before = {task.get_name() for task in asyncio.all_tasks()}
        yield place
        after = {task.get_name() for task in asyncio.all_tasks()}
        assert {name for name in before - after if name.startswith("hyperbus")} == set()


@pytest.mark.parametrize(
    "member",
    [b"%s:\xff", b"\xff", b"%s:\xed\xa0\x80", b"\x80" * 100_000],
    ids=["of the prefix", "bare", "surrogate", "long"],
)
async def test_a_directory_member_that_is_no_text_hides_no_stream(server: Server, member: bytes) -> None:
    """Streams that are born afterwards are read, in a process that runs and in one that starts."""
    async with reading(server) as place:
        await place.born_and_handled()
        await place.command("ZADD", place.record("streams"), 1, member.replace(b"%s", place.prefix.encode()))
        await place.born_and_handled()
        await place.born_and_handled()

        @consumer(group="second", types=["*"])
        async def second(event: Event) -> None:
            others.append(event.id)

        others: list[str] = []
        async with place.bus.running(second):  # starts all the same
            await eventually(lambda: len(others) == len(place.seen), within=WITHIN)


@pytest.mark.parametrize("score", ["inf", "-inf", "1e300"])
async def test_a_directory_member_of_no_time_hides_no_stream(server: Server, score: str) -> None:
    """Neither those that are younger, nor those that are older."""
    async with reading(server) as place:
        await place.command("ZADD", place.record("streams"), score, f"{place.prefix}:of.no.time")
        for _ in range(3):
            await place.born_and_handled()


@pytest.mark.parametrize("kind", ["handed over", "stream"])
@pytest.mark.parametrize(
    "notice",
    [b'{"to":"\xff"}', b"\xff", b'{"to":' + b"[" * 5_000, b'{"to":1e999,"streams":[]}'],
    ids=["no text in it", "no text", "deep", "no name"],
)
async def test_a_notice_that_is_no_text_silences_no_other(server: Server, kind: str, notice: bytes) -> None:
    """A stream that is born afterwards is announced at once: the scan would take a minute."""
    async with reading(server, scan_interval=60.0) as place:
        await place.born_and_handled()
        await place.command("XADD", place.record("notices"), "*", kind, notice)
        await place.born_and_handled()


@pytest.mark.parametrize(
    "policy",
    [b"\xff", b'{"keep":{"age":1e999},"place":"x"}', b"[" * 5_000],
    ids=["no text", "for ever", "deep"],
)
async def test_a_retention_record_that_is_none_stops_no_cutting(server: Server, policy: bytes) -> None:
    """Other types are kept down as before; this one as if nothing had been declared."""
    async with reading(server, retain_age=0.2) as place:
        for name in ("bad", "good"):
            await place.command("SET", place.record(f"retention:born.{name}"), policy if name == "bad" else b"")
            await place.born_and_handled(name)
        streams = [f"{place.prefix}:born.{name}" for name in ("bad", "good")]

        async def left() -> list[Any]:
            return [await place.command("XLEN", stream) for stream in streams]

        async with asyncio.timeout(WITHIN):
            while await left() != [0, 0]:
                await asyncio.sleep(0.05)


async def test_a_checkpoint_that_is_none_stops_nobody(server: Server) -> None:
    """It makes way for one, whatever kind of key it is; a group that is lost is made again."""
    async with reading(server) as place:
        await place.born_and_handled("one")
        await place.born_and_handled("two")
        for name, words in (("one", ("SET", b"\xff\xff")), ("two", ("RPUSH", b"x"))):
            key = f"{{{place.prefix}:born.{name}}}:checkpoint:all"
            await place.command("DEL", key)
            await place.command(words[0], key, words[1])
            await place.command("XGROUP", "DESTROY", f"{place.prefix}:born.{name}", "all")
        await place.born_and_handled("one")
        await place.born_and_handled("two")
        for name in ("one", "two"):
            key = f"{{{place.prefix}:born.{name}}}:checkpoint:all"
            async with asyncio.timeout(WITHIN):
                while await place.command("TYPE", key) != b"string" or b"-" not in await place.command("GET", key):
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize("stored", [b"\xff", b"yesterday", b"$"])
async def test_a_group_whose_first_declaration_is_unreadable_starts(server: Server, stored: bytes) -> None:
    """From now on; `start_from="new"` keeps that time on the server."""
    place = Place(server)
    group, kind = unique(), unique()
    await place.command("SET", place.record(f"group:{group}"), stored)

    @consumer(group=group, types=[kind], start_from="new")
    async def handler(event: Event) -> None:
        place.seen.append(event.id)

    async with place.bus, place.bus.running(handler):
        await place.bus.publish(Event(type=kind, data={}))
        await eventually(lambda: place.seen, within=WITHIN)


async def test_a_parked_entry_that_nobody_parked_keeps_no_other_from_being_taken(server: Server) -> None:
    """It becomes a dead letter, with its bytes; those after it are tried again."""
    place = Place(server)
    kind = unique()
    stream = f"{place.prefix}:{kind}"
    tries: list[int] = []

    @consumer(group="g", types=[kind], retry=Backoff(tries=9))
    async def handler(event: Event) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise Retry(after=3600)

    async with place.bus, place.bus.running(handler):
        await place.bus.publish(Event(type=kind, data={}))
        parked, due = f"{{{stream}}}:parked:g", f"{{{stream}}}:parked_due:g"

        async def waits() -> bool:
            return bool(await place.command("ZCARD", due))

        async with asyncio.timeout(WITHIN):
            while not await waits():
                await asyncio.sleep(0.02)
        [(entry_id)] = await place.command("ZRANGE", due, 0, -1)
        await place.command("HSET", parked, "1-0", b"\xff", "1-0:state", b"\xff \xff \xff ")
        await place.command("HSET", parked, "2-0", b"\xc1", "2-0:state", "x y z ")
        await place.command("HSET", parked, "\xff", b"\xc1", "\xff:state", "1 1 1 ")
        for score, member in ((1, "1-0"), (2, "2-0"), (3, "\xff"), (4, "9-9"), (5, entry_id)):
            await place.command("ZADD", due, score, member)
        await eventually(lambda: len(tries) == 2, within=WITHIN)

        async def buried() -> int:
            return int(await place.command("XLEN", f"{{{stream}}}:dead:g"))

        async with asyncio.timeout(WITHIN):
            while await buried() != 2:
                await asyncio.sleep(0.05)
