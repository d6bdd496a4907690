"""Turns a stream of events into a few log lines: counts and rate an interval, and each failure, at a bounded rate."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hyperbus.clock import Clock, Seconds, SystemClock
from hyperbus.errors import InvalidSettingError
from hyperbus.event.envelope import Event
from hyperbus.logger import get_logger
from hyperbus.observability.metrics import BoundedLabels

#: Types that a line names; the rest are added up.
_MAX_NAMED = 20
_MAX_TEXT = 500


class EventLog:
    """Logs one line every `interval` seconds in which events came, and at most `max_failures` failed events.

    An event has failed if the last word of its type is `failed`.
    """

    def __init__(self, *, interval: Seconds = 5.0, max_failures: int = 10, clock: Clock | None = None) -> None:
        if not 0 < interval <= 86_400:  # noqa: PLR2004 - a day
            raise InvalidSettingError(f"interval={interval} has to be more than 0 and at most 86400 seconds")
        self._interval = interval
        self._max_failures = max_failures
        self._clock = clock or SystemClock()
        self._types = BoundedLabels()
        self._counts: Counter[str] = Counter()
        self._failures = 0
        self._began = self._clock.monotonic()
        self._ticker: asyncio.Task[None] | None = None
        self._log = get_logger("hyperbus.events")

    async def start(self) -> None:
        """Begin the first interval."""
        self._began = self._clock.monotonic()
        self._ticker = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Log what was not logged yet."""
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
            self._ticker = None
        self.flush()

    def add(self, events: Sequence[Event[Any]]) -> None:
        """Count a batch, and log the failures in it."""
        for event_type, count in Counter(event.type for event in events).items():
            self._counts[self._types(event_type)] += count
        for event in events:
            if event.type.endswith("failed") and event.type.rpartition(".")[2] == "failed":
                self._add_failure(event)

    def flush(self) -> None:
        """Log the counts since the last line, if there are any, and begin a new interval."""
        now = self._clock.monotonic()
        seconds, self._began = now - self._began, now
        counts, self._counts = self._counts, Counter()
        failures, self._failures = self._failures, 0
        total = counts.total()
        if not total:
            return
        named = dict(counts.most_common(_MAX_NAMED))
        values: dict[str, Any] = {"total": total, "per_second": round(total / max(seconds, 0.001), 1), "types": named}
        if len(counts) > len(named):
            values["of_other_types"] = total - sum(named.values())
        if failures > self._max_failures:
            values["failures_not_logged"] = failures - self._max_failures
        self._log.info("events", **values)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(self._interval)
            self.flush()

    def _add_failure(self, event: Event[Any]) -> None:
        self._failures += 1
        if self._failures > self._max_failures:
            return
        told = event.data.get("error") if isinstance(event.data, dict) else getattr(event.data, "error", None)
        values = {
            "type": event.type,
            "id": event.id,
            "workflow_id": event.workflow_id,
            "source_agent": event.source_agent,
            "error": None if told is None else str(told)[:_MAX_TEXT],
        }
        self._log.warning("event failed", **{name: value for name, value in values.items() if value is not None})
