"""Handlers in the publishing process."""

from __future__ import annotations

from typing import Any

import pytest

from hyperbus import Event
from hyperbus.errors import (
    EncodeError,
)
from tests.faults import FaultyTransport
from tests.unit.publisher.publishing import Placed, a_bus


async def test_local_handlers_see_what_was_stored() -> None:
    """Plain and async handlers run after the event is stored; one that fails harms nobody."""
    transport = FaultyTransport()
    seen: list[str] = []

    def fails(_event: Event) -> None:
        raise ZeroDivisionError

    async def remembers(event: Event) -> None:
        seen.append(f"async {event.data.number}")

    def answers(event: Event) -> Any:
        seen.append(f"plain {event.data.number}")
        return "no awaitable"

    async with a_bus(transport) as bus:
        for handler in (fails, remembers, answers):
            bus.on_publish("publisher_test.*", handler)
        bus.on_publish("other", lambda _: seen.append("never"))
        await bus.publish(Placed(number=1))
        await bus.publish_many([Placed(number=2)])
        with pytest.raises(EncodeError):
            await bus.publish(Event(type="publisher_test.placed", data=object()))
    assert seen == ["async 1", "plain 1", "async 2", "plain 2"]
