"""Signals into Prometheus metrics. Counters and histograms grow once a batch, never once an event."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter

from hyperbus.error_text import name_of
from hyperbus.observability.histogram import BatchHistogram
from hyperbus.signals import (
    Acknowledged,
    Claimed,
    ConnectionChanged,
    CutUnread,
    DeliveryFailed,
    EntryDeadLettered,
    GhostStream,
    GroupAbandoned,
    GroupRebuilt,
    Handled,
    HardCapNear,
    LocalHandlerFailed,
    Published,
    PublishErred,
    Recovered,
    RetryScheduled,
    Signal,
    Trimmed,
)

#: Distinct event types that get a label of their own in one process; the rest are "other".
MAX_TYPES = 1_000
#: The label of everything beyond.
OTHER = "other"
#: Upper bounds of publish and handler times, in seconds.
DURATION_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
#: Upper bounds of the time from an event's timestamp to the end of its handling, in seconds.
LATENCY_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 30, 60),
)


class BoundedLabels:
    """Lets the first `limit` distinct values through; the rest become `OTHER`. Keeps label cardinality bounded."""

    def __init__(self, limit: int = MAX_TYPES) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return the label for `value`."""
        if value in self._known:
            return value
        if len(self._known) >= self._limit:
            return OTHER
        self._known.add(value)
        return value


class BusMetrics:
    """A listener that keeps hyperbus's own metrics in `registry`. One a process and registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._types = BoundedLabels()
        self._streams = BoundedLabels()
        self._errors = BoundedLabels(100)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"hyperbus_{name}", text, labels, registry=registry)

        self._published = counter("published", "Events appended to their streams.", "type")
        self._publish_errors = counter("publish_errors", "Events that were not, or maybe not, appended.", "error")
        self._deliveries = counter("deliveries", "Deliveries by how they ended.", "group", "type", "outcome")
        self._acks = counter("acks", "Entries whose ack the server took.", "group")
        self._failures = counter("failures", "Deliveries that failed, by what was raised.", "group", "error")
        self._local_failures = counter("local_handler_failures", "Failures of handlers in the publishing process.")
        self._retries = counter("retries", "Retries that were scheduled.", "group")
        self._dead_letters = counter("dead_letters", "Entries that became dead letters.", "group", "reason")
        self._claimed = counter("claimed", "Entries taken over from dead consumers.", "group")
        self._recovered = counter("recovered", "Entries delivered unnoticed and found again.", "group")
        self._rebuilt = counter("groups_rebuilt", "Lost groups that were created again.", "group")
        self._disconnects = counter("disconnects", "Times that the server was lost.", "part")
        self._trimmed = counter("trimmed", "Entries cut that no live group had yet to ack.", "stream")
        self._cut_unread = counter("cut_unread", "Entries cut that a group had yet to ack.", "group", "reason")
        self._caps_near = counter("hard_cap_warnings", "Warnings that a hard cap is about to cut unread.", "stream")
        self._abandoned = counter(
            "groups_abandoned", "Groups that hold a stream no longer: nobody serves them.", "group"
        )
        self._ghosts = counter("ghost_streams", "Reports of a stream that no group reads.", "stream")
        self._publish_seconds = BatchHistogram(
            "hyperbus_publish_seconds", "From encoding to the server's answer, a batch.", (), DURATION_BUCKETS, registry
        )
        self._handler_seconds = BatchHistogram(
            "hyperbus_handler_seconds", "Time in a handler, a call.", ("group",), DURATION_BUCKETS, registry
        )
        self._latency = BatchHistogram(
            "hyperbus_latency_seconds",
            "From an event's timestamp to the end of its handling.",
            ("group",),
            LATENCY_BUCKETS,
            registry,
        )

    def __call__(self, signal: Signal) -> None:
        """Add what `signal` says."""
        match signal:
            case Handled():
                self._add_handled(signal)
            case Published(counts, seconds):
                for event_type, count in counts.items():
                    self._published.labels(self._types(event_type)).inc(count)
                self._publish_seconds.observe_many((), (seconds,))
            case Acknowledged(group, count):
                self._acks.labels(group).inc(count)
            case _:
                self._add_trouble(signal)

    def _add_handled(self, signal: Handled) -> None:
        group = signal.group
        for outcome in ("acked", "retried", "dead_lettered"):
            for event_type, count in getattr(signal, outcome).items():
                self._deliveries.labels(group, self._types(event_type), outcome).inc(count)
        self._handler_seconds.observe_many((group,), signal.handler_seconds)
        self._latency.observe_many((group,), signal.latencies)

    def _add_trouble(self, signal: Any) -> None:
        match signal:
            case PublishErred(count, error):
                self._publish_errors.labels(self._errors(error)).inc(count)
            case DeliveryFailed():
                error = self._errors(name_of(signal.error))
                self._failures.labels(signal.group, error).inc(signal.count)
            case LocalHandlerFailed():
                self._local_failures.inc()
            case RetryScheduled():
                self._retries.labels(signal.group).inc()
            case EntryDeadLettered():
                self._dead_letters.labels(signal.group, signal.reason).inc()
            case Claimed():
                self._claimed.labels(signal.group).inc(signal.count)
            case Recovered():
                self._recovered.labels(signal.group).inc(signal.count)
            case GroupRebuilt():
                self._rebuilt.labels(signal.group).inc()
            case ConnectionChanged(part, connected=False):
                self._disconnects.labels(part).inc()
            case _:
                self._add_retention(signal)

    def _add_retention(self, signal: Any) -> None:
        match signal:
            case Trimmed(stream, count):
                self._trimmed.labels(self._streams(stream)).inc(count)
            case CutUnread():
                self._cut_unread.labels(signal.group, signal.reason).inc(signal.count)
            case HardCapNear(stream):
                self._caps_near.labels(self._streams(stream)).inc()
            case GroupAbandoned(group, seconds_left=0):
                self._abandoned.labels(group).inc()
            case GhostStream(stream):
                self._ghosts.labels(self._streams(stream)).inc()
