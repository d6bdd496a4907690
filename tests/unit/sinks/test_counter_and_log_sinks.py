"""The counter and the log sink sum events up, bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from hyperbus.errors import InvalidSettingError
from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event
from hyperbus.sinks.log import EventLog
from hyperbus.sinks.metrics import EventCounter


class Failed(EventData, type="sink_tests.failed"):
    error: str


class StepClock:
    """A clock whose sleeps end when the test says so."""

    def __init__(self) -> None:
        self.time = 0.0
        self.turns: asyncio.Queue[None] = asyncio.Queue()

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, delay: float) -> None:
        await self.turns.get()
        self.time += delay


def event(event_type: str, data: Any = None, **more: Any) -> Event[Any]:
    return Event(type=event_type, data={} if data is None else data, **more)


def test_events_are_counted_by_type() -> None:
    """Batches add up."""
    registry = CollectorRegistry()
    counter = EventCounter(registry)
    counter.add([event("a"), event("b.c"), event("a")])
    counter.add([event("a")])
    assert registry.get_sample_value("hyperbus_events_total", {"type": "a"}) == 3
    assert registry.get_sample_value("hyperbus_events_total", {"type": "b.c"}) == 1


def test_types_without_end_share_a_label() -> None:
    """The thousand and first type is other."""
    registry = CollectorRegistry()
    EventCounter(registry).add([event(f"t{number}") for number in range(1_003)])
    assert registry.get_sample_value("hyperbus_events_total", {"type": "other"}) == 3


def test_a_registry_has_one_counter_at_a_time() -> None:
    """A second one says so; after the first is closed it may begin."""
    registry = CollectorRegistry()
    first = EventCounter(registry)
    with pytest.raises(InvalidSettingError, match="another CollectorRegistry"):
        EventCounter(registry)
    first.close()
    EventCounter(registry)


async def test_an_interval_makes_one_line() -> None:
    """With the counts by type and the rate; an interval without events makes none."""
    clock = StepClock()
    sink = EventLog(interval=5, clock=clock)
    with structlog.testing.capture_logs() as logged:
        await sink.start()
        sink.add([event("a")] * 40 + [event("b")] * 10)
        clock.turns.put_nowait(None)
        async with asyncio.timeout(10):
            while not logged:
                await asyncio.sleep(0)
        clock.turns.put_nowait(None)
        await sink.stop()
    assert logged == [
        {"event": "events", "log_level": "info", "total": 50, "per_second": 10.0, "types": {"a": 40, "b": 10}}
    ]


async def test_stopping_logs_what_is_left() -> None:
    """The last interval is not lost."""
    sink = EventLog(clock=StepClock())
    with structlog.testing.capture_logs() as logged:
        await sink.start()
        sink.add([event("a")])
        await sink.stop()
    assert [line["total"] for line in logged] == [1]


def test_a_line_names_few_types_and_adds_up_the_rest() -> None:
    """However many types there are, the line stays short."""
    sink = EventLog()
    sink.add([event(f"t{number}") for number in range(5_000)])
    with structlog.testing.capture_logs() as logged:
        sink.flush()
    assert len(logged[0]["types"]) == 20
    assert sum(logged[0]["types"].values()) + logged[0]["of_other_types"] == 5_000


def test_a_type_that_ends_in_failed_is_business_like_any_other() -> None:
    """`payment.failed` is an everyday event; nobody is warned of what was not asked for."""
    sink = EventLog()
    with structlog.testing.capture_logs() as logged:
        sink.add([event("payment.failed", {"error": "no money"}), event("failed"), event("job.Failed")])
        sink.flush()
    assert [line["log_level"] for line in logged] == ["info"]


def test_events_to_be_warned_of_have_a_line_each_at_a_bounded_rate() -> None:
    """With what they say went wrong, of declared and undeclared types; the rest are counted."""
    sink = EventLog(max_failures=2, warn_of=["*.failed", "failed"])
    with structlog.testing.capture_logs() as logged:
        sink.add(
            [
                event("x.failed", {"error": "e" * 10_000}, workflow_id="wf-1", source_agent="coder"),
                Event(data=Failed(error="bad")),
                event("workflow.not_failed"),
                event("failed"),
            ]
        )
        sink.flush()
    first, second, summary = logged
    assert (first["type"], first["workflow_id"], first["source_agent"]) == ("x.failed", "wf-1", "coder")
    assert len(first["error"]) == 500
    assert (second["type"], second["error"]) == ("sink_tests.failed", "bad")
    assert (summary["total"], summary["warnings_left_out"]) == (4, 1)


def test_an_interval_of_nothing_is_refused() -> None:
    """It would spin."""
    with pytest.raises(InvalidSettingError, match="interval"):
        EventLog(interval=0)
