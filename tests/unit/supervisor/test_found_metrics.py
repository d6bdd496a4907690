"""What waits is shown, and a look at the metrics does not search the server's keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hyperbus import Backoff, Bus, Event, Reject, Retry, consumer
from hyperbus.settings import Settings
from hyperbus.supervisor.metrics_folder import MetricsFolder
from hyperbus.supervisor.status import StatusPages
from tests.faults import FaultyTransport

WITHIN = 20.0


@asynccontextmanager
async def pages(folder: Path) -> AsyncGenerator[tuple[Bus, StatusPages, FaultyTransport]]:
    """A bus on memory, and the pages of its supervisor."""
    transport = FaultyTransport()
    launcher: Any = SimpleNamespace(processes=[])
    async with Bus(transport=transport, settings=Settings(heartbeat_ttl=0.4, drain_timeout=0.5)) as bus:
        found = StatusPages(launcher, [], bus, MetricsFolder(folder), hung_after=10)
        async with found.serving("127.0.0.1", 0):
            yield bus, found, transport


async def until_shown(page: StatusPages, *lines: str) -> str:
    """Wait until a scrape has all of these lines."""
    async with asyncio.timeout(WITHIN):
        while True:
            text = (await page._metrics()).body.decode()
            if all(f"{line}\n" in text for line in lines):
                return text
            await asyncio.sleep(0.2)


async def test_parked_and_waiting_retries_and_dead_letters_are_shown_by_group(tmp_path: Path) -> None:
    """A parked entry is neither lag nor pending: it was nowhere to be seen."""
    async with pages(tmp_path) as (bus, page, _):

        @consumer(group="g", types=["waits.long", "waits.short", "waits.never"], retry=Backoff(tries=9))
        async def handler(event: Event) -> None:
            if event.type == "waits.never":
                raise Reject("no")
            raise Retry(after=3600 if event.type == "waits.long" else 30)

        async with bus.running(handler):
            for kind in ("long", "long", "short", "never"):
                await bus.publish(Event(type=f"waits.{kind}", data={}))
            labels = 'group="g",stream="events:waits'
            text = await until_shown(
                page,
                f'hyperbus_group_parked_entries{{{labels}.long"}} 2.0',
                f'hyperbus_group_retries_waiting{{{labels}.short"}} 1.0',
                f'hyperbus_dead_letter_entries{{{labels}.never"}} 1.0',
            )
            assert f'hyperbus_group_pending_entries{{{labels}.long"}} 0.0\n' in text


async def test_looks_search_nothing(tmp_path: Path) -> None:
    """With two million keys of others, a search takes seconds, and each look took one."""
    async with pages(tmp_path) as (bus, page, transport):
        await bus.publish(Event(type="seen.a", data={}))
        await until_shown(page, 'hyperbus_stream_length{stream="events:seen.a"} 1.0')
        searches = len(transport.streams.called("scan"))
        await bus.publish(Event(type="seen.b", data={}))
        await until_shown(page, 'hyperbus_stream_length{stream="events:seen.b"} 1.0')
        assert len(transport.streams.called("scan")) == searches
