"""The pages of a supervisor, without a supervisor: what they show when the server is away, and how often they ask."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hyperbus import Bus, BusUnavailable
from hyperbus.settings import Settings
from hyperbus.supervisor.metrics_folder import MetricsFolder
from hyperbus.supervisor.status import StatusPages
from tests.faults import FaultyTransport


async def test_metrics_ask_the_server_no_more_than_once_a_second(tmp_path: Path) -> None:
    """Many scrapers at once are one question; a server that is away costs the streams' numbers and nothing else."""
    transport = FaultyTransport()
    launcher: Any = SimpleNamespace(processes=[])

    async def away(*_: Any) -> Any:
        raise BusUnavailable("away")

    async with Bus(transport=transport, settings=Settings()) as bus:
        pages = StatusPages(launcher, [], bus, MetricsFolder(tmp_path), hung_after=10)
        first, second = await asyncio.gather(pages._metrics(), pages._metrics())
        assert first.status == second.status == 200
        asked = len(transport.streams.called("scan"))
        assert asked == 2, "streams and dead letters, once"
        transport.streams.overrides["scan"] = away
        pages._updated_at = float("-inf")
        assert (await pages._metrics()).status == 200
        assert (await pages._healthz()).status == 503, "no process runs"
