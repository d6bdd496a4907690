"""Signals become metrics, alone and added up over processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hyperbus.errors import HyperbusError
from hyperbus.observability.exposition import MAX_STREAMS, StreamStates, render
from hyperbus.observability.histogram import BatchHistogram
from hyperbus.observability.metrics import BoundedLabels, BusMetrics
from hyperbus.signals import (
    Acknowledged,
    Claimed,
    ConnectionChanged,
    DeliveryFailed,
    EntryDeadLettered,
    GroupRebuilt,
    Handled,
    LocalHandlerFailed,
    Published,
    PublishErred,
    Recovered,
    RetryScheduled,
    StreamsFound,
    WorkerChanged,
)
from hyperbus.transport import GroupInfo, StreamInfo


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def samples(text: bytes) -> dict[str, float]:
    """Every sample, by its name and its labels in the order of their names."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def failed(**values: Any) -> DeliveryFailed:
    """A delivery that failed with a ValueError, and will be tried again."""
    told: dict[str, Any] = {
        "consumer": "bill", "group": "g", "stream": "events:a.b", "entry_id": "1-0", "event_type": "a.b",
        "event_id": "e-1", "workflow_id": "wf-1", "tries": 1, "most_tries": 8, "cause": "raised", "after": 0.2,
        "dead_lettered": False, "error": ValueError("no"),
    }  # fmt: skip
    return DeliveryFailed(**told | values)


def test_every_signal_has_its_metric(registry: CollectorRegistry) -> None:
    """Each counter grows by what its signal says."""
    listen = BusMetrics(registry)
    for signal in (
        Published({"a.b": 3, "c": 1}, 0.002),
        PublishErred(4, "BusUnavailable"),
        Handled("g", {"a.b": 5}, {"a.b": 2}, {"a.b": 1}, [0.01, 0.02], [0.004, 0.03]),
        Acknowledged("g", 5),
        failed(count=2),
        LocalHandlerFailed(
            handler="shop.show", event_type="a.b", event_id="e", workflow_id=None, error=ValueError("no")
        ),
        RetryScheduled("g", "events:a.b", "1-0", 1, 0.2, "ValueError"),
        EntryDeadLettered("g", "events:a.b", "1-0", "rejected", "Reject", "no"),
        Claimed("g", "events:a.b", 6, "dead-1"),
        Recovered("g", "events:a.b", 7),
        Recovered("g", "s", 5, handed_over=True),  # nothing was unnoticed
        GroupRebuilt("g", "events:a.b", "1-0"),
        ConnectionChanged("reader", connected=False, error="x"),
        ConnectionChanged("reader", connected=True),
        StreamsFound("g", ("events:a.b",)),
        WorkerChanged("g", "c", "started"),
    ):
        listen(signal)
    found = samples(render(registry))
    expected = {
        "hyperbus_published_total{type=a.b}": 3,
        "hyperbus_published_total{type=c}": 1,
        "hyperbus_publish_errors_total{error=BusUnavailable}": 4,
        "hyperbus_publish_seconds_count{}": 1,
        "hyperbus_deliveries_total{group=g,outcome=acked,type=a.b}": 5,
        "hyperbus_deliveries_total{group=g,outcome=retried,type=a.b}": 2,
        "hyperbus_deliveries_total{group=g,outcome=dead_lettered,type=a.b}": 1,
        "hyperbus_handler_seconds_count{group=g}": 2,
        "hyperbus_handler_seconds_sum{group=g}": 0.03,
        "hyperbus_latency_seconds_bucket{group=g,le=0.0025}": 0,
        "hyperbus_latency_seconds_bucket{group=g,le=0.005}": 1,
        "hyperbus_latency_seconds_bucket{group=g,le=0.035}": 2,
        "hyperbus_latency_seconds_bucket{group=g,le=+Inf}": 2,
        "hyperbus_acks_total{group=g}": 5,
        "hyperbus_failures_total{error=ValueError,group=g}": 2,
        "hyperbus_local_handler_failures_total{}": 1,
        "hyperbus_retries_total{group=g}": 1,
        "hyperbus_dead_letters_total{group=g,reason=rejected}": 1,
        "hyperbus_claimed_total{group=g}": 6,
        "hyperbus_recovered_total{group=g}": 7,
        "hyperbus_groups_rebuilt_total{group=g}": 1,
        "hyperbus_disconnects_total{part=reader}": 1,
    }
    assert {name: found.get(name) for name in expected} == pytest.approx(expected)


def test_a_batch_histogram_equals_one_observed_value_by_value(registry: CollectorRegistry) -> None:
    """On bounds, between, above and at zero, it says what the client's own histogram says."""
    bounds = (0.1, 1, 2.5)
    values = [0, 0.05, 0.1, 0.100001, 1.0, 2.5, 2.6, 1e9]
    other = CollectorRegistry()
    plain = Histogram("h", "text", ("group",), buckets=bounds, registry=other)
    for value in values:
        plain.labels("g").observe(value)
    BatchHistogram("h", "text", ("group",), bounds, registry).observe_many(("g",), values)
    expected = {name: value for name, value in samples(generate_latest(other)).items() if "_created" not in name}
    assert samples(render(registry)) == expected


def test_a_value_below_zero_counts_as_zero(registry: CollectorRegistry) -> None:
    """Clocks that differ make no negative sum, which Prometheus would take for a restart."""
    BatchHistogram("h", "text", (), (1,), registry).observe_many((), [-5.0, 0.5])
    found = samples(render(registry))
    assert (found["h_sum{}"], found["h_bucket{le=1.0}"]) == (0.5, 2)


def test_labels_are_bounded() -> None:
    """What comes after the limit is other; what is known stays itself."""
    label = BoundedLabels(2)
    assert [label(value) for value in ("a", "b", "c", "a")] == ["a", "b", "other", "a"]


def test_types_beyond_a_thousand_share_a_label(registry: CollectorRegistry) -> None:
    """A producer that invents types cannot fill the memory of Prometheus."""
    listen = BusMetrics(registry)
    for number in range(1_200):
        listen(Published({f"t{number}": 1}, 0.001))
    published = {name: value for name, value in samples(render(registry)).items() if "published_total" in name}
    assert len(published) == 1_001
    assert published["hyperbus_published_total{type=other}"] == 200


_CHILD = """
import sys
from prometheus_client import CollectorRegistry
from hyperbus.observability.metrics import BusMetrics
from hyperbus.signals import Handled, Published
listen = BusMetrics(CollectorRegistry())
for _ in range(2):
    listen(Published({"a": 3}, 0.002))
    listen(Handled("g", {"a": 2}, {}, {}, [0.01], [0.004, 0.2]))
"""


def test_processes_are_added_up(tmp_path: Path) -> None:
    """Counters and histograms of two processes are summed, and gauges of this one stand beside them."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", _CHILD], env=environment, check=True, timeout=30)
    own = CollectorRegistry()
    states = StreamStates()
    own.register(states)
    states.update([StreamInfo("events:a", 9, [])])
    found = samples(render(own, multiprocess_dir=tmp_path))
    expected = {
        "hyperbus_published_total{type=a}": 12,
        "hyperbus_handler_seconds_count{group=g}": 4,
        "hyperbus_latency_seconds_bucket{group=g,le=0.0025}": 0,
        "hyperbus_latency_seconds_bucket{group=g,le=0.005}": 4,
        "hyperbus_latency_seconds_bucket{group=g,le=0.25}": 8,
        "hyperbus_latency_seconds_bucket{group=g,le=+Inf}": 8,
        "hyperbus_latency_seconds_count{group=g}": 8,
        "hyperbus_latency_seconds_sum{group=g}": 0.816,
        "hyperbus_stream_length{stream=events:a}": 9,
    }
    assert {name: found.get(name) for name in expected} == pytest.approx(expected)


def test_a_missing_folder_of_processes_is_named(tmp_path: Path) -> None:
    """The error is ours and names the folder."""
    with pytest.raises(HyperbusError, match="nowhere"):
        render(multiprocess_dir=tmp_path / "nowhere")


def test_a_damaged_file_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    """An empty file, as a process leaves it for a moment, is tried again and then reported."""
    (tmp_path / "counter_1.db").touch()
    with pytest.raises(HyperbusError, match="damaged"):
        render(multiprocess_dir=tmp_path)


def test_states_of_streams_become_gauges(registry: CollectorRegistry) -> None:
    """An unknown lag is absent, never 0; dead letters are shown under their stream and group."""
    states = StreamStates()
    registry.register(states)
    states.update(
        [
            StreamInfo("events:a", 5, [GroupInfo("g", 1, 2, 3, b"1-0"), GroupInfo("h", 0, 1, None, b"1-0")]),
            StreamInfo("{events:a}:dead:g", 4, []),
            None,
        ]
    )
    assert samples(render(registry)) == {
        "hyperbus_stream_length{stream=events:a}": 5,
        "hyperbus_group_lag_entries{group=g,stream=events:a}": 3,
        "hyperbus_group_pending_entries{group=g,stream=events:a}": 2,
        "hyperbus_group_pending_entries{group=h,stream=events:a}": 1,
        "hyperbus_dead_letter_entries{group=g,stream=events:a}": 4,
        "hyperbus_streams_left_out{}": 0,
    }
    states.update([])
    assert samples(render(registry)) == {"hyperbus_streams_left_out{}": 0}


def test_streams_beyond_the_limit_are_counted(registry: CollectorRegistry) -> None:
    """The page stays bounded and says that it leaves something out."""
    states = StreamStates()
    registry.register(states)
    states.update(StreamInfo(f"events:s{number}", 1, []) for number in range(MAX_STREAMS + 7))
    found = samples(render(registry))
    assert found["hyperbus_streams_left_out{}"] == 7
    assert len(found) == MAX_STREAMS + 1
