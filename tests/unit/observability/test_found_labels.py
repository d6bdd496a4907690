"""Labels that come from whoever may publish are bounded, in number and in length."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from hyperbus import Event
from hyperbus.observability.exposition import StreamStates
from hyperbus.observability.metrics import BusMetrics
from hyperbus.signals import ConnectionChanged, EntryDeadLettered, GhostStream, Handled, Published, Signal
from hyperbus.sinks.metrics import EventCounter
from hyperbus.transport import GroupInfo, StreamInfo

LONG = "x" * 200_000


def shown(registry: CollectorRegistry) -> str:
    """Return what a scrape gets."""
    return generate_latest(registry).decode()


@pytest.mark.parametrize(
    "signal",
    [
        Published({LONG: 3}, 0.1),
        Handled("g", {LONG: 3}, {}, {}, [], []),
        Handled(LONG, {"a": 3}, {}, {}, [0.1], [0.1]),
        EntryDeadLettered(LONG, "events:a", "1-0", "rejected", "", ""),
        ConnectionChanged(f"stream events:{LONG}", connected=False, kind="stream"),
        GhostStream(f"events:{LONG}", 1, 1),
        Published({"a\x00b": 3}, 0.1),
        Published({"a\u202eb": 3}, 0.1),
    ],
)
def test_what_is_too_long_or_odd_is_other(signal: Signal) -> None:
    """Wherever it is a label: types, groups, streams, parts."""
    registry = CollectorRegistry()
    BusMetrics(registry)(signal)
    page = shown(registry)
    assert len(page) < 20_000
    assert '="other"' in page
    assert "\x00" not in page
    assert "\u202e" not in page


def test_a_thousand_long_types_are_one() -> None:
    """They took 800 MB in each process and as much in the server that scrapes it."""
    registry = CollectorRegistry()
    counter = EventCounter(registry)
    counter.add([Event(type=f"{LONG}{number}", data={}) for number in range(100)])
    assert registry.get_sample_value("hyperbus_events_total", {"type": "other"}) == 100


def test_groups_and_parts_beyond_a_thousand_share_a_label() -> None:
    """As types do."""
    registry = CollectorRegistry()
    listen = BusMetrics(registry)
    for number in range(1_100):
        listen(EntryDeadLettered(f"g{number}", "events:a", "1-0", "rejected", "", ""))
        listen(ConnectionChanged(f"stream events:{number}", connected=False, kind="stream"))
    labels = {"group": "other", "reason": "rejected"}
    assert registry.get_sample_value("hyperbus_dead_letters_total", labels) == 100
    assert registry.get_sample_value("hyperbus_disconnects_total", {"part": "other"}) == 100


def test_states_of_streams_with_long_names_are_left_out_and_counted() -> None:
    """So are groups that other programs gave odd names, or very many of them."""
    registry = CollectorRegistry()
    states = StreamStates()
    registry.register(states)
    groups = [GroupInfo(name, 0, 0, 0, b"0-0") for name in ("g", LONG, "\udcff", *map(str, range(10_000)))]
    states.update([StreamInfo(f"events:{LONG}", 1, []), StreamInfo("events:a", 1, groups)])
    page = shown(registry)
    assert LONG not in page
    assert 'hyperbus_group_pending_entries{group="g",stream="events:a"}' in page
    left_out = registry.get_sample_value("hyperbus_streams_left_out")
    assert left_out is not None
    assert left_out >= 3
