"""The pages of a supervisor, without a supervisor: what they show when the server is away, and how often they ask."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hyperbus import Bus, BusUnavailable, Event
from hyperbus.settings import Settings
from hyperbus.supervisor import stream_survey
from hyperbus.supervisor.metrics_folder import MetricsFolder
from hyperbus.supervisor.status import StatusPages
from hyperbus.transport import NewEntry, Parked
from tests.faults import FaultyTransport


async def test_metrics_ask_the_server_no_more_than_once_a_second(tmp_path: Path) -> None:
    """Many scrapers at once are one question; a server that is away costs the streams' numbers and nothing else."""
    transport = FaultyTransport()
    launcher: Any = SimpleNamespace(processes=[])

    async def away(*_: Any, **_named: Any) -> Any:
        raise BusUnavailable("away")

    async with Bus(transport=transport, settings=Settings()) as bus:
        pages = StatusPages(launcher, [], bus, MetricsFolder(tmp_path), hung_after=10)
        await bus.publish(Event(type="status.a", data={}))
        await transport.inner.streams.append([NewEntry("events:foreign", b"data", b"x")])
        async with pages.serving("127.0.0.1", 0):
            first, second = await asyncio.gather(pages._metrics(), pages._metrics())
            assert first.status == second.status == 200
            assert b'stream="events:foreign"' in first.body
            assert b'stream="events:status.a"' in first.body
            assert len(transport.records.called("members")) == 1
            for _ in range(3):
                pages._survey._updated_at = float("-inf")
                await pages._metrics()
            asked = len(transport.streams.called("scan"))
            assert asked == 2, "streams and dead letters, once: looks search nothing"
            transport.records.overrides["members"] = away
            pages._survey._updated_at = float("-inf")
            assert b"events:" not in (await pages._metrics()).body
            assert (await pages._healthz()).status == 503, "no process runs"


async def test_metrics_tell_what_waits_in_every_group_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked for page by page: those of the first page are shown as well as those of the last."""
    monkeypatch.setattr(stream_survey, "_PAGE", 2)
    transport, launcher = FaultyTransport(), SimpleNamespace(processes=[])
    names = [f"events:status.many{number}" for number in range(5)]
    async with Bus(transport=transport, settings=Settings()) as bus:
        pages = StatusPages(launcher, [], bus, MetricsFolder(tmp_path), hung_after=10)  # type: ignore[arg-type]
        streams = transport.inner.streams
        await streams.append([NewEntry(name, b"data", b"x") for name in names])
        await streams.create_groups([(name, "group", b"0-0") for name in names])
        reader = transport.inner.open_reader()
        for name, page in await reader.read_group("group", "one", names, count=1, block=0):
            parked = [Parked(entry.id, entry.fields, 1, 0.0, 4e9) for entry in page]
            assert await streams.park(name, "group", "one", parked) == [True]
        await reader.close()
        async with pages.serving("127.0.0.1", 0):
            lines = (await pages._metrics()).body.decode().splitlines()
    told = [line for line in lines if line.startswith("hyperbus_group_parked") and line.endswith(" 1.0")]
    assert len(told) == len(names), told
