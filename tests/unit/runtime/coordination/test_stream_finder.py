"""Streams that are born later are found, by whoever asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Self

from hyperbus import BusUnavailable
from hyperbus.clock import SystemClock
from hyperbus.runtime.coordination.stream_finder import StreamFinder
from hyperbus.transport import NewEntry, record_names
from tests.faults import FaultyTransport
from tests.recorder import eventually


class Finding:
    """A finder over a memory, and one that it tells."""

    def __init__(self, scan_interval: float = 60.0) -> None:
        self.transport = FaultyTransport()
        self.finder = StreamFinder(self.transport, SystemClock(), prefix="events", scan_interval=scan_interval)
        self.told: list[dict[str, str]] = []
        self.failures: list[Exception] = []

    async def __aenter__(self) -> Self:
        await self.transport.open()
        self._task = asyncio.create_task(self.finder.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.transport.close()

    async def hear(self, found: Mapping[str, str]) -> None:
        """Be told; fail as often as was asked for."""
        if self.failures:
            raise self.failures.pop()
        self.told.append(dict(found))

    async def born(self, *names: str) -> None:
        """Enter streams in the directory, as a publisher does, and give notice."""
        await self.transport.inner.records.add_members(record_names.STREAM_DIRECTORY, dict.fromkeys(names, 1.0))
        self.finder.look_soon()


async def test_a_notice_that_comes_during_a_look_is_heard_after_it() -> None:
    """It was forgotten when the look ended, until the next search of all keys."""
    looking, go_on = asyncio.Event(), asyncio.Event()
    async with Finding() as here:

        async def slowly(scan: Any, *arguments: Any) -> Any:
            found = await scan(*arguments)
            looking.set()
            await go_on.wait()
            return found

        await here.finder.subscribe(here.hear)
        here.transport.streams.overrides["scan"] = slowly
        here.finder.look_soon()
        await looking.wait()
        await here.born("events:late")
        go_on.set()
        await eventually(lambda: here.told == [{"events:late": "late"}])


async def test_a_subscriber_gets_what_there_is_and_is_told_once_of_what_is_born_later() -> None:
    """Of event types only, under this prefix."""
    async with Finding() as here:
        await here.born("events:a")
        await here.transport.inner.streams.append([NewEntry("events:foreign", b"data", b"x")])
        known = await here.finder.subscribe(here.hear)
        assert known == {"events:a": "a", "events:foreign": "foreign"}
        await here.born("events:b", "events:@inbox", "other:c")
        await eventually(lambda: here.told)
        await here.born("events:d")
        await eventually(lambda: len(here.told) > 1)
    assert here.told == [{"events:b": "b"}, {"events:d": "d"}]


async def test_streams_of_other_programs_are_found_by_a_scan() -> None:
    """They are in no directory."""
    async with Finding(scan_interval=0.0) as here:
        await here.finder.subscribe(here.hear)
        await here.transport.inner.streams.append([NewEntry("events:foreign", b"data", b"x")])
        here.finder.look_soon()
        await eventually(lambda: here.told == [{"events:foreign": "foreign"}])


async def test_more_than_a_thousand_streams_are_found() -> None:
    """At once: a page of the directory would leave some for ever."""
    names = [f"events:s{number}" for number in range(1_500)]
    async with Finding() as here:
        await here.finder.subscribe(here.hear)
        await here.born(*names)
        await eventually(lambda: here.told)
    assert sorted(here.told[0]) == sorted(names)


async def test_who_cannot_take_a_stream_up_is_told_again_and_keeps_no_other_from_it() -> None:
    """Each subscriber is told until it could."""
    async with Finding() as here:
        others: list[Any] = []

        async def other(found: Mapping[str, str]) -> None:
            others.append(dict(found))

        await here.finder.subscribe(here.hear)
        await here.finder.subscribe(other)
        here.failures = [BusUnavailable("away")]
        await here.born("events:a")
        await eventually(lambda: others == [{"events:a": "a"}])
        assert here.told == []
        here.finder.look_soon()
        await eventually(lambda: here.told == [{"events:a": "a"}])
        assert len(others) == 1


async def test_an_outage_ends_nothing() -> None:
    """It looks again after a pause."""
    here, failed = Finding(), []

    async def away(members: Any, *arguments: Any, **named: Any) -> Any:
        if not failed:
            failed.append(True)
            raise BusUnavailable("away")
        return await members(*arguments, **named)

    async with here:
        await here.finder.subscribe(here.hear)
        here.transport.records.overrides["members"] = away
        await here.born("events:a")
        await eventually(lambda: here.told == [{"events:a": "a"}])
    assert failed


async def test_who_unsubscribed_is_told_no_more() -> None:
    """Twice is safe."""
    async with Finding() as here:
        others: list[Any] = []

        async def other(found: Mapping[str, str]) -> None:
            others.append(found)

        await here.finder.subscribe(here.hear)
        await here.finder.subscribe(other)
        here.finder.unsubscribe(other)
        here.finder.unsubscribe(other)
        await here.born("events:a")
        await eventually(lambda: here.told)
    assert others == []
