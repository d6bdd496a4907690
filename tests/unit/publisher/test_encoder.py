"""What an event becomes on its way to a stream, and what is refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from hyperbus import Event
from hyperbus.errors import (
    DeclarationError,
    EncodeError,
    EventTooLargeError,
    InvalidSettingError,
)
from tests.faults import FaultyTransport
from tests.unit.publisher.publishing import STREAM, Placed, a_bus, appended


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (Event(type="publisher_test.placed", data={"what": object()}), EncodeError),
        (Placed(text="x" * 2000), EventTooLargeError),
        (Event(type="Not A Type", data={}), DeclarationError),
    ],
)
async def test_what_cannot_be_published_is_refused_before_anything_is_sent(event: Any, error: type[Exception]) -> None:
    """The caller gets the reason, and the server nothing."""
    transport = FaultyTransport()
    async with a_bus(transport, max_event_bytes=1000) as bus:
        with pytest.raises(error):
            await bus.publish(event)
    assert appended(transport) == []


async def test_msgpack_is_written_under_its_own_field_name() -> None:
    """The setting `codec` chooses how events are written; an unknown one is refused at the start."""
    transport = FaultyTransport()
    async with a_bus(transport, codec="msgpack") as bus:
        await bus.publish(Placed())
        (entry,) = await transport.streams.range(STREAM)
        assert entry.fields[0] == b"msgpack"
    with pytest.raises(InvalidSettingError, match="json"):
        async with a_bus(FaultyTransport(), codec="xml"):
            pass
