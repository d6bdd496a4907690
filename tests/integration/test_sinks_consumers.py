"""The ready-made consumers do their work on a running bus, together."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from websockets.asyncio.client import connect

from consumers.db_writer import DbWriter
from consumers.log import LogAggregator
from consumers.metrics import MetricsCollector
from consumers.websocket import WebSocketServer
from hyperbus import Bus, Event, EventData
from hyperbus.declaration.consumer import declaration_of
from hyperbus.sinks.database import DatabaseError, open_database
from hyperbus.sinks.log import EventLog
from hyperbus.sinks.metrics import EventCounter
from hyperbus.sinks.websocket import WebSocketBroadcaster


class Started(EventData, type="sinks_test.started"):
    n: int


class Failed(EventData, type="sinks_test.failed"):
    error: str


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


def stored(path: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT event_id, type, workflow_id, data FROM workflow_updates").fetchall()
    connection.close()
    return found


def test_groups_are_those_that_the_documentation_names() -> None:
    """Dashboards and operators rely on them."""
    declared = {declaration_of(consumer).group for consumer in (DbWriter, MetricsCollector, LogAggregator)}
    assert declared == {"db_writers", "metrics_collectors", "log_aggregators"}
    assert declaration_of(WebSocketServer).audience == "every_process"


async def test_every_consumer_sees_every_event(tmp_path: Path) -> None:
    """What is published reaches clients, table, counter and log, each event once."""
    path = tmp_path / "events.db"
    registry = CollectorRegistry()
    broadcaster = WebSocketBroadcaster(port=0)
    consumers = (
        WebSocketServer(broadcaster),
        DbWriter(open_database(f"sqlite:///{path}")),
        MetricsCollector(EventCounter(registry)),
        LogAggregator(EventLog(warn_of=["*.failed"])),
    )
    events: list[Event[Any]] = [Event(data=Started(n=n), workflow_id=f"wf-{n % 2}") for n in range(300)]
    events.append(Event(data=Failed(error="bad"), workflow_id="wf-0"))
    with structlog.testing.capture_logs() as logged:
        async with Bus("memory://", source_agent="tester") as bus, bus.running(*consumers):
            uri = f"ws://127.0.0.1:{broadcaster.port}/?workflow_id=wf-0"
            async with connect(uri, compression=None, proxy=None) as client:
                await until(lambda: broadcaster.clients == 1)
                await bus.publish_many(events)
                async with asyncio.timeout(15):
                    seen = [json.loads(await client.recv()) for _ in range(151)]
                await until(lambda: len(stored(path)) == 301)
                count = {"type": "sinks_test.started"}
                await until(lambda: registry.get_sample_value("hyperbus_events_total", count) == 300)
    assert {event["id"] for event in seen} == {event.id for event in events if event.workflow_id == "wf-0"}
    rows = {row[0]: row for row in stored(path)}
    assert rows[events[7].id] == (events[7].id, "sinks_test.started", "wf-1", '{"n":7}')
    lines = [line for line in logged if line["event"] in ("events", "event to be warned of")]
    assert sum(line.get("total", 0) for line in lines) == 301
    assert [line["error"] for line in lines if line["event"] == "event to be warned of"] == ["bad"]


class UnreachableAtFirst:
    """A database that cannot be reached for the first few batches."""

    def __init__(self, path: Path, times: int) -> None:
        self.times = times
        self._database = open_database(f"sqlite:///{path}")
        self.start = self._database.start
        self.stop = self._database.stop

    async def write(self, rows: Any) -> int:
        self.times -= 1
        if self.times >= 0:
            raise DatabaseError("away")
        return await self._database.write(rows)


async def test_what_the_database_refused_is_written_later(tmp_path: Path) -> None:
    """The error reaches the bus, which tries again; nothing is lost."""
    path = tmp_path / "events.db"
    database = UnreachableAtFirst(path, times=3)
    async with Bus("memory://") as bus, bus.running(DbWriter(database)):
        await bus.publish_many([Event(data=Started(n=n)) for n in range(50)])
        await until(lambda: len(stored(path)) == 50)
    assert database.times < 0


async def test_a_metrics_collector_can_begin_again() -> None:
    """It leaves the registry when it stops."""
    for _ in range(2):
        async with Bus("memory://") as bus, bus.running(MetricsCollector):
            pass


async def test_settings_reach_the_ready_made_consumers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As classes, without arguments, they are what the environment says."""
    path = tmp_path / "by_setting.db"
    monkeypatch.setenv("HYPERBUS_DATABASE_URL", f"sqlite:///{path}")
    monkeypatch.setenv("HYPERBUS_WEBSOCKET_PORT", "0")
    async with Bus("memory://") as bus, bus.running(DbWriter, LogAggregator, WebSocketServer):
        await bus.publish(Started(n=1))
        await until(lambda: len(stored(path)) == 1)
