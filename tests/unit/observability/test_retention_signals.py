"""What is cut is counted and, where it was unread, logged."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from hyperbus.observability.metrics import BusMetrics
from hyperbus.observability.signal_log import SignalLog
from hyperbus.signals import CutUnread, GhostStream, GroupAbandoned, HardCapNear, Trimmed

SIGNALS = (
    Trimmed("events:a", 5),
    HardCapNear("events:a", 0.9),
    CutUnread("g", "events:a", 3, "hard cap"),
    GroupAbandoned("g", "events:a", 600.0),
    GroupAbandoned("g", "events:a", 0.0),
    GhostStream("events:b", 7, 100),
)


def test_each_has_its_metric() -> None:
    """A group that is only warned of is not given up yet."""
    registry = CollectorRegistry()
    listen = BusMetrics(registry)
    for signal in SIGNALS:
        listen(signal)
    assert registry.get_sample_value("hyperbus_trimmed_total", {"stream": "events:a"}) == 5
    assert registry.get_sample_value("hyperbus_hard_cap_warnings_total", {"stream": "events:a"}) == 1
    assert registry.get_sample_value("hyperbus_cut_unread_total", {"group": "g", "reason": "hard cap"}) == 3
    assert registry.get_sample_value("hyperbus_groups_abandoned_total", {"group": "g"}) == 1
    assert registry.get_sample_value("hyperbus_ghost_streams_total", {"stream": "events:b"}) == 1


def test_what_goes_unread_is_loud_and_the_rest_is_not() -> None:
    """Cutting what is acked is no news."""
    with capture_logs() as logs:
        listen = SignalLog()
        for signal in SIGNALS:
            listen(signal)
    assert [line["log_level"] for line in logs] == ["warning", "error", "warning", "error", "warning"]
    assert logs[1]["count"] == 3
    assert "soon" in logs[2]["event"]
