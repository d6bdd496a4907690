"""A histogram that takes a batch of values at once; correct alone and in prometheus_client's multiprocess mode."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, values
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString


def _le(bound: float) -> str:
    text: str = floatToGoString(bound)  # type: ignore[no-untyped-call]
    return text


class _Child:
    """The series of one set of label values. Each value adds up on its own, so that processes can be summed."""

    def __init__(
        self, name: str, text: str, labels: tuple[str, ...], label_values: tuple[str, ...], bounds: Sequence[float]
    ) -> None:
        self.sum = values.ValueClass("histogram", name, f"{name}_sum", labels, label_values, text)
        self.buckets = [
            values.ValueClass("histogram", name, f"{name}_bucket", (*labels, "le"), (*label_values, _le(bound)), text)
            for bound in bounds
        ]


class BatchHistogram:
    """A Prometheus histogram. A batch costs one addition for each bucket that it touches, and one for the sum.

    The client's own histogram takes one lock, and in multiprocess mode one write to a shared file, a value.
    """

    def __init__(
        self, name: str, text: str, labels: Sequence[str], buckets: Iterable[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._text = text
        self._labels = tuple(labels)
        self._bounds = (*(float(bound) for bound in buckets), float("inf"))
        self._children: dict[tuple[str, ...], _Child] = {}
        registry.register(self)

    def observe_many(self, label_values: tuple[str, ...], observed: Sequence[float]) -> None:
        """Add all `observed` values; one below zero (clocks differ) counts as zero."""
        if not observed:
            return
        child = self._children.get(label_values)
        if child is None:
            child = _Child(self._name, self._text, self._labels, label_values, self._bounds)
            self._children[label_values] = child
        lowest = min(observed)
        child.sum.inc(sum(observed) if lowest >= 0 else sum([value for value in observed if value > 0]))
        first = bisect_left(self._bounds, lowest)
        if max(observed) <= self._bounds[first]:  # often all are alike, and then there is nothing to sort
            child.buckets[first].inc(len(observed))
            return
        ordered = sorted(observed)
        # one search a bound instead of one a value: there are more values than bounds
        counted = 0
        for bucket, bound in enumerate(self._bounds[first:], first):
            up_to = bisect_right(ordered, bound, counted)
            if up_to > counted:
                child.buckets[bucket].inc(up_to - counted)
                counted = up_to
            if counted == len(ordered):
                break

    def describe(self) -> list[HistogramMetricFamily]:
        """Name the metric, so that a registry can refuse a second one."""
        return [HistogramMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> list[HistogramMetricFamily]:
        """Return this process's numbers."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for label_values, child in list(self._children.items()):
            running = accumulate(bucket.get() for bucket in child.buckets)
            pairs = [(_le(bound), count) for bound, count in zip(self._bounds, running, strict=True)]
            family.add_metric(label_values, pairs, child.sum.get())
        return [family]
