"""Counts events by type for Prometheus, once a batch."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter

from hyperbus.errors import InvalidSettingError
from hyperbus.event.envelope import Event
from hyperbus.observability.metrics import BoundedLabels


class EventCounter:
    """Keeps `hyperbus_events_total{type}` in `registry`; types beyond 1,000 are counted as "other".

    `close` takes the metric out of the registry again.

    Raises:
        InvalidSettingError: the registry already has one.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._types = BoundedLabels()
        try:
            self._events = Counter("hyperbus_events", "Events seen, by type.", ("type",), registry=registry)
        except ValueError as error:
            raise InvalidSettingError(
                "hyperbus_events_total is already counted in this registry; give EventCounter another CollectorRegistry"
            ) from error

    def add(self, events: Sequence[Event[Any]]) -> None:
        """Count a batch."""
        for event_type, count in Tally(event.type for event in events).items():
            self._events.labels(self._types(event_type)).inc(count)

    def close(self) -> None:
        """Leave the registry; the next one may begin."""
        self._registry.unregister(self._events)
