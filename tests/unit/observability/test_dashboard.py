"""The dashboard asks only for metrics that exist, from the data source that is provisioned for it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from hyperbus.observability.exposition import StreamStates
from hyperbus.observability.metrics import BusMetrics
from hyperbus.sinks.metrics import EventCounter

GRAFANA = Path(__file__).parents[3] / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards/hyperbus.json").read_text())
PANELS = DASHBOARD["panels"]


def exposed_names() -> set[str]:
    registry = CollectorRegistry()
    BusMetrics(registry)
    EventCounter(registry)
    registry.register(StreamStates())
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {family.name + suffix for family in registry.collect() for suffix in suffixes[family.type]}


def asked_names() -> set[str]:
    return {name for p in PANELS for t in p["targets"] for name in re.findall(r"\bhyperbus_\w+", t["expr"])}


def test_every_metric_that_the_dashboard_asks_for_exists():
    """A misspelt counter would show as a calm zero for ever."""
    assert asked_names() - exposed_names() == set()


def test_every_counter_and_gauge_is_on_the_dashboard():
    """What is worth counting is worth seeing; sums and counts of histograms, and how much is hidden, are not shown."""
    shown = {name for name in exposed_names() if not name.endswith(("_sum", "_count", "_left_out"))}
    assert shown - asked_names() == set()


def test_panels_and_targets_are_well_formed():
    """Ids are unique, panels do not overlap, and every target asks the provisioned data source."""
    uid = re.search(r"^ +uid: (\S+)$", (GRAFANA / "provisioning/datasources/prometheus.yml").read_text(), re.MULTILINE)
    assert uid is not None
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS}) == len(PANELS)
    sources = [item["datasource"] for panel in PANELS for item in (panel, *panel["targets"])]
    assert sources == [{"type": "prometheus", "uid": uid[1]}] * len(sources)
