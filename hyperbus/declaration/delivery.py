"""One handing-over of an entry to a handler."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event, Publishable


class PublishEvent(Protocol):
    """How a delivery publishes: the bus's own `publish`, given a whole event."""

    async def __call__(self, event: Event[Any], /, *, once: bool = False, durability: str | None = None) -> str:
        """Publish it; return its entry id."""
        ...


class Delivery(msgspec.Struct, kw_only=True, gc=False):
    """What a handler may know of the entry that it was handed, besides the event.

    Attributes:
        entry_id: where the entry lies in its stream, such as "1700000000000-0". Not an identity: see `Event.id`.
        stream: the stream's key.
        group: the consumer group.
        consumer: this worker's name in the group.
        tries: how often the group was handed this entry, this time included.
        body: the entry's bytes as they were read.
    """

    entry_id: str
    stream: str
    group: str
    consumer: str
    tries: int
    body: bytes
    event: Event[Any]
    publish_event: PublishEvent

    async def publish(self, what: Publishable, *, once: bool = False, durability: str | None = None) -> str:
        """Publish an event that this one caused; return its entry id.

        It inherits `workflow_id` and `correlation_id` (this event's id where there is none yet) unless it
        has its own, and its `causation_id` is this event's id.

        `once` and `durability` are those of `Bus.publish`. This event may be handled again: only an event whose `id`
        is the same each time, such as one made from this one's, is then published once.

        Raises:
            BusUnavailable, PublishUncertain, PublishRefusedError, EncodeError, EventTooLargeError, NotDurable,
            DurabilityUnsupported: see `Bus.publish`.
        """
        cause = self.event
        event = what if isinstance(what, Event) else _wrap(what)
        return await self.publish_event(
            msgspec.structs.replace(
                event,
                workflow_id=event.workflow_id or cause.workflow_id,
                correlation_id=event.correlation_id or cause.correlation_id or cause.id,
                causation_id=cause.id,
            ),
            once=once,
            durability=durability,
        )


def _wrap(data: EventData) -> Event[Any]:
    return Event(data=data)
