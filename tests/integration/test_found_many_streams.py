"""Very many streams: those beyond any number are found, read and told of, and those that have ended go away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hyperbus import Bus, Event, consumer
from hyperbus.settings import Settings
from tests.recorder import Recorder, eventually
from tests.servers import Server
from tests.unit.runtime.running import body, unique

#: What takes its time may take so long on a busy machine.
WITHIN = 30.0
#: Types, in the long form of these tests and in the short one.
TYPES = 21_000 if os.environ.get("HYPERBUS_TEST_LONG") else 1_200


class Place:
    """A bus with a prefix of its own, and what its consumers have seen."""

    def __init__(self, server: Server, **settings: Any) -> None:
        self.server = server
        self.prefix = unique("p")
        self.recorder = Recorder()
        self.seen: set[str] = set()
        chosen = {"prefix": self.prefix, "heartbeat_ttl": 0.4, "drain_timeout": 1.0, **settings}
        self.settings = Settings(**chosen)
        self.bus = Bus(server.url, settings=self.settings, listeners=[self.recorder])

    async def command(self, *words: Any) -> Any:
        return await asyncio.to_thread(self.server.command, *words)

    @property
    def directory(self) -> str:
        return f"hyperbus:{self.prefix}:streams"

    async def list_dead(self, count: int) -> None:
        """Enter streams in the directory that were published into long ago."""
        words = [word for n in range(count) for word in (n, f"{self.prefix}:dead.d{n}")]
        await self.command("ZADD", self.directory, *words)


@asynccontextmanager
async def reading(place: Place, how: str, pattern: str) -> AsyncGenerator[None]:
    """See everything of a pattern, in one of the three ways."""
    if how == "read":

        async def read() -> None:
            async for event in place.bus.read(pattern):
                place.seen.add(event.id)

        async with place.bus:
            task = asyncio.create_task(read())
            yield
            task.cancel()
            await asyncio.wait((task,))
        return
    options: dict[str, Any] = {"audience": "every_process"} if how == "every_process" else {"group": "g"}

    @consumer(types=[pattern], **options)
    async def see(event: Event) -> None:
        place.seen.add(event.id)

    async with place.bus, place.bus.running(see):
        yield


@pytest.mark.parametrize("how", ["group", "every_process", "read"])
async def test_a_stream_that_is_born_after_ten_thousand_others_is_read(server: Server, how: str) -> None:
    """At once: a search of the keys would take a minute."""
    place = Place(server, scan_interval=60.0)
    await place.list_dead(10_050)
    async with reading(place, how, "live.*"):
        for n in range(3):
            event = Event(type=f"live.a{n}", data={})
            await place.bus.publish(event)
            await eventually(lambda event=event: event.id in place.seen, within=WITHIN)  # type: ignore[misc]


async def test_retention_sees_to_streams_behind_ten_thousand_others(server: Server) -> None:
    """What is acked goes by its age, however long the directory is."""
    place = Place(server, scan_interval=60.0, retain_age=0.2)
    await place.list_dead(10_050)
    async with reading(place, "group", "live.*"):
        await place.bus.publish(Event(type="live.a", data={}))
        await eventually(lambda: place.seen, within=WITHIN)
        async with asyncio.timeout(WITHIN):
            while await place.command("XLEN", f"{place.prefix}:live.a"):
                await asyncio.sleep(0.05)


@pytest.mark.timeout(60 + TYPES // 100)
@pytest.mark.parametrize("how", ["group", "every_process", "read"])
async def test_more_streams_than_a_read_names_are_all_read(server: Server, how: str) -> None:
    """What comes into them at first, and what other programs add when they have been quiet for long."""
    place = Place(server, scan_interval=1.0)
    within = WITHIN + TYPES / 200
    async with reading(place, how, "run.*"):
        events = [Event(type=f"run.r{n}", data={"n": n}) for n in range(TYPES)]
        for start in range(0, TYPES, 500):
            await place.bus.publish_many(events[start : start + 500], timeout=within)
        await eventually(lambda: {event.id for event in events} <= place.seen, within=within)
        for n in (0, TYPES // 2, TYPES - 1):
            await place.command("XADD", f"{place.prefix}:run.r{n}", "*", "data", body(n, f"run.r{n}"))
            await eventually(lambda n=n: f"id-{n}" in place.seen, within=WITHIN)  # type: ignore[misc]
    assert [told for told in place.recorder.signals if type(told).__name__ == "BoundReached"] == []


async def test_more_streams_than_a_process_may_know_are_told_of(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; those that were published into last are known."""
    monkeypatch.setattr("hyperbus.runtime.coordination.stream_finder.MOST_STREAMS", 100)
    place = Place(server, scan_interval=0.5)

    def told() -> list[Any]:
        return [signal for signal in place.recorder.signals if type(signal).__name__ == "BoundReached"]

    await place.list_dead(150)
    async with reading(place, "group", "*"):
        await place.recorder.wait_for(lambda _: told(), within=WITHIN)
        event = Event(type="live.a", data={})
        await place.bus.publish(event)
        await eventually(lambda: event.id in place.seen, within=WITHIN)
    assert len(told()) == 1


async def test_a_stream_that_has_ended_goes_under_running_workers_and_can_be_born_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody makes it again before it is published into; the one that a worker names stays."""
    monkeypatch.setattr("hyperbus.runtime.retention.ended_streams.ENDED_AFTER", 0.3)
    monkeypatch.setattr("hyperbus.runtime.retention.ended_streams.BEING_BORN", 0.1)
    place = Place(server, scan_interval=0.5, retain_age=0.1)
    named = unique()

    @consumer(group="h", types=[named])
    async def see_named(event: Event) -> None:
        place.seen.add(event.id)

    async with reading(place, "group", "run.*"), place.bus.running(see_named):
        event, other = Event(type="run.one", data={}), Event(type=named, data={})
        await place.bus.publish_many([event, other])
        await eventually(lambda: {event.id, other.id} <= place.seen, within=WITHIN)
        async with asyncio.timeout(WITHIN):
            while await place.command("EXISTS", f"{place.prefix}:run.one") or await place.command(
                "ZSCORE", place.directory, f"{place.prefix}:run.one"
            ):
                await asyncio.sleep(0.05)
        assert await place.command("KEYS", f"*{place.prefix}:run.one*") == []
        again = [Event(type=kind, data={}) for kind in ("run.one", named)]
        await place.bus.publish_many(again)
        await eventually(lambda: {event.id for event in again} <= place.seen, within=WITHIN)
