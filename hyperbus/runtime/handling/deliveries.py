"""What a handler is told of an event's way to it, where it asks for that."""

from __future__ import annotations

from typing import Any

from hyperbus.declaration.delivery import Delivery, PublishEvent
from hyperbus.event.envelope import Event
from hyperbus.home import Home
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.decoder import EventDecoder
from hyperbus.runtime.in_flight.received import Received


class Deliveries:
    """Makes the delivery of an entry for one consumer."""

    def __init__(self, member: Member, decoder: EventDecoder, publish: PublishEvent) -> None:
        self._member = member
        self._decoder = decoder
        self._publish = publish
        self._home = Home()

    def of(self, received: Received, event: Event[Any]) -> Delivery:
        """Return the delivery of an entry and of the event that it holds."""
        return Delivery(
            entry_id=received.id.decode(),
            stream=received.stream,
            group=self._member.group,
            consumer=self._member.consumer,
            tries=received.handed,
            body=self._decoder.body_of(received),
            event=event,
            publish_event=self._publish,
            home=self._home,
        )
