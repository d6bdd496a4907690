"""Turns a stream of events into a few log lines: counts and rate an interval, and events to be warned of, if any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hyperbus.background import BackgroundTasks
from hyperbus.clock import Clock, Seconds, SystemClock
from hyperbus.errors import InvalidSettingError
from hyperbus.event.envelope import Event
from hyperbus.event.routing import TypeFilter
from hyperbus.logger import get_logger
from hyperbus.observability.metrics import BoundedLabels

#: Types that a line names; the rest are added up.
_MAX_NAMED = 20
_MAX_TEXT = 500


class EventLog:
    """Logs one line every `interval` seconds in which events came.

    Args:
        interval: seconds between two lines.
        warn_of: types and globs, such as "backup.failed": each such event is a warning of its own. None by default, for
            what a type's name means, only its owner knows: `payment.failed` may be everyday business.
        max_failures: warnings an interval, at most.
        clock: what the interval goes by.
    """

    def __init__(
        self,
        *,
        interval: Seconds = 5.0,
        warn_of: Sequence[str] = (),
        max_failures: int = 10,
        clock: Clock | None = None,
    ) -> None:
        if not 0 < interval <= 86_400:  # noqa: PLR2004 - a day
            raise InvalidSettingError(f"interval={interval} has to be more than 0 and at most 86400 seconds")
        self._interval = interval
        self._warn_of = TypeFilter(warn_of).matches if warn_of else None
        self._max_failures = max_failures
        self._clock = clock or SystemClock()
        self._types = BoundedLabels()
        self._counts: Counter[str] = Counter()
        self._failures = 0
        self._began = self._clock.monotonic()
        self._background = BackgroundTasks(clock=self._clock)
        self._log = get_logger("hyperbus.events")

    async def start(self) -> None:
        """Begin the first interval."""
        self._began = self._clock.monotonic()
        self._background.start(self._tick, "event log")

    async def stop(self) -> None:
        """Log what was not logged yet."""
        await self._background.stop()
        self.flush()

    def add(self, events: Sequence[Event[Any]]) -> None:
        """Count a batch, and warn of those in it that are to be warned of."""
        for event_type, count in Counter(event.type for event in events).items():
            self._counts[self._types(event_type)] += count
        if self._warn_of is not None:
            for event in events:
                if self._warn_of(event.type):
                    self._warn(event)

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
            values["warnings_left_out"] = failures - self._max_failures
        self._log.info("events", **values)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(self._interval)
            self.flush()

    def _warn(self, event: Event[Any]) -> None:
        self._failures += 1
        if self._failures > self._max_failures:
            return
        told = event.data.get("error") if isinstance(event.data, dict) else getattr(event.data, "error", None)
        values = {
            "type": event.type[:_MAX_TEXT],
            "id": event.id,
            "workflow_id": event.workflow_id,
            "source_agent": event.source_agent,
            "error": None if told is None else str(told)[:_MAX_TEXT],
        }
        self._log.warning(
            "event to be warned of", **{name: value for name, value in values.items() if value is not None}
        )
