"""Signals into Prometheus metrics. Counters and histograms grow once a batch, never once an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from hyperbus.error_text import name_of
from hyperbus.logger import get_logger
from hyperbus.observability.histogram import BatchHistogram
from hyperbus.signals import (
    Acknowledged,
    BackgroundChanged,
    BoundReached,
    Claimed,
    ConnectionChanged,
    CutUnread,
    DeliveryFailed,
    Disowned,
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
    RefusalChanged,
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


#: A longer label value is "other" too, and one with anything but printable ASCII in it.
MAX_LABEL = 200


class BoundedLabels:
    """Lets the first `limit` distinct values through; the rest become `OTHER`. Keeps label cardinality bounded.

    So do values that are too long or odd: some come from whoever may publish. The first of each kind is told.

    Args:
        limit: how many values get a label of their own.
        what: what the values are, for people.
        told: called once, when there are more than `limit`.
    """

    def __init__(
        self, limit: int = MAX_TYPES, what: str = "event types", told: Callable[[str], None] | None = None
    ) -> None:
        self._limit = limit
        self._what = what
        self._told = told
        self._known: set[str] = set()
        self._is_full = self._is_odd = False

    def __call__(self, value: str) -> str:
        """Return the label for `value`."""
        if value in self._known:
            return value
        if len(value) > MAX_LABEL or not (value.isascii() and value.isprintable()):
            if not self._is_odd:
                self._is_odd = True
                self._warn("is too long or odd", example=repr(value[:50]))
            return OTHER
        if len(self._known) >= self._limit:
            if not self._is_full:
                self._is_full = True
                self._warn("is one too many", limit=self._limit)
                if self._told is not None:
                    self._told(f"labels of {self._what}")
            return OTHER
        self._known.add(value)
        return value

    def _warn(self, why: str, **facts: Any) -> None:
        get_logger("hyperbus.metrics").warning(f"a label {why}: it is counted as other", of=self._what, **facts)


class BusMetrics:
    """A listener that keeps hyperbus's own metrics in `registry`. One a process and registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._types = BoundedLabels(told=self._reached)
        self._streams = BoundedLabels(what="streams", told=self._reached)
        self._groups = BoundedLabels(what="groups", told=self._reached)
        self._parts = BoundedLabels(what="parts of the process", told=self._reached)
        self._errors = BoundedLabels(100, what="errors", told=self._reached)

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
        self._disowned = counter("disowned", "Entries held that a server, which lost its tail, had not given.", "group")
        self._rebuilt = counter("groups_rebuilt", "Lost groups that were created again.", "group")
        self._disconnects = counter("disconnects", "Times that the server was lost.", "part")
        self._background = counter("background_failures", "Background tasks that failed and were begun again.", "part")
        self._bounds = counter("bounds_reached", "Bounds that were reached; the log says of what.", "bound")
        self._refusals = counter("refusals", "Times that the server began to refuse what a part asks.", "part")
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
                self._acks.labels(self._groups(group)).inc(count)
            case _:
                self._add_trouble(signal)

    def _reached(self, bound: str) -> None:
        self._bounds.labels(bound).inc()

    def _add_handled(self, signal: Handled) -> None:
        group = self._groups(signal.group)
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
                self._failures.labels(self._groups(signal.group), error).inc(signal.count)
            case LocalHandlerFailed():
                self._local_failures.inc()
            case RetryScheduled():
                self._retries.labels(self._groups(signal.group)).inc()
            case EntryDeadLettered():
                self._dead_letters.labels(self._groups(signal.group), signal.reason).inc()
            case Claimed():
                self._claimed.labels(self._groups(signal.group)).inc(signal.count)
            case Recovered(handed_over=False):
                self._recovered.labels(self._groups(signal.group)).inc(signal.count)
            case Disowned():
                self._disowned.labels(self._groups(signal.group)).inc(signal.count)
            case GroupRebuilt():
                self._rebuilt.labels(self._groups(signal.group)).inc()
            case _:
                self._add_trouble_of_parts(signal)

    def _add_trouble_of_parts(self, signal: Any) -> None:
        match signal:
            case BackgroundChanged(part, running=False):
                self._background.labels(self._parts(part)).inc()
            case BoundReached(bound):
                self._reached(bound)
            case ConnectionChanged(part, connected=False):
                self._disconnects.labels(self._parts(part)).inc()
            case RefusalChanged(part, refused=True):
                self._refusals.labels(self._parts(part)).inc()
            case _:
                self._add_retention(signal)

    def _add_retention(self, signal: Any) -> None:
        match signal:
            case Trimmed(stream, count):
                self._trimmed.labels(self._streams(stream)).inc(count)
            case CutUnread():
                self._cut_unread.labels(self._groups(signal.group), signal.reason).inc(signal.count)
            case HardCapNear(stream):
                self._caps_near.labels(self._streams(stream)).inc()
            case GroupAbandoned(group, seconds_left=0):
                self._abandoned.labels(self._groups(group)).inc()
            case GhostStream(stream):
                self._ghosts.labels(self._streams(stream)).inc()
