"""What a supervisor and its processes tell each other survives the way."""

from __future__ import annotations

import msgspec
import pytest

from hyperbus.settings import Settings
from hyperbus.supervisor.messages import Alive, Failed, Inspected, Orders, Ready, Report


@pytest.mark.parametrize(
    "report",
    [
        Inspected(consumers=("a", "b"), needs_websocket=True),
        Ready(),
        Alive(connected=False, workers=("w",)),
        Failed(message="it said\nthis", exit_code=14),
    ],
)
def test_a_report_is_one_line_and_comes_back_as_it_was(report: Report) -> None:
    """Also where its text has line breaks."""
    line = msgspec.json.encode(report)
    assert b"\n" not in line
    assert msgspec.json.decode(line, type=Report) == report


def test_orders_carry_every_setting() -> None:
    """A process works with its supervisor's settings."""
    orders = Orders(modules=("m",), folder="/x", settings=Settings(url="memory://", heartbeat_ttl=0.7))
    assert msgspec.json.decode(msgspec.json.encode(orders), type=Orders) == orders
