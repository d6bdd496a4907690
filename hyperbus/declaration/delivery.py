"""One handing-over of an entry to a handler."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

import msgspec

from hyperbus.errors import BusUnavailable
from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event, Publishable
from hyperbus.home import Home


class PublishEvent(Protocol):
    """How a delivery publishes: the bus's own `publish`, given a whole event."""

    def __call__(
        self, event: Event[Any], /, *, once: bool = False, durability: str | None = None
    ) -> Coroutine[Any, Any, str]:
        """Publish it, once it is awaited; return its entry id."""
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
        event: the event that the entry holds.
        publish_event: what `publish` calls.
        home: where that is done.
    """

    entry_id: str
    stream: str
    group: str
    consumer: str
    tries: int
    body: bytes
    event: Event[Any]
    publish_event: PublishEvent
    home: Home | None = None

    def publish(
        self, what: Publishable, *, once: bool = False, durability: str | None = None
    ) -> Coroutine[Any, Any, str]:
        """Publish an event that this one caused; return its entry id. To be awaited, as `Bus.publish`.

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
        return self.publish_event(
            msgspec.structs.replace(
                event,
                workflow_id=event.workflow_id or cause.workflow_id,
                correlation_id=event.correlation_id or cause.correlation_id or cause.id,
                causation_id=cause.id,
            ),
            once=once,
            durability=durability,
        )

    def publish_blocking(self, what: Publishable, *, once: bool = False, durability: str | None = None) -> str:
        """Do what `publish` does, in a handler that is a plain function: block its thread until the answer is there.

        Raises:
            BusUnavailable: it was not sent, or this is no thread of its own: where an event loop runs, await `publish`.
            PublishUncertain, PublishRefusedError, EncodeError, EventTooLargeError, NotDurable, DurabilityUnsupported:
                see `Bus.publish`.
        """
        if self.home is None:
            raise BusUnavailable("this delivery is not a running bus's: nothing was sent")
        return self.home.wait_for(lambda: self.publish(what, once=once, durability=durability))


def _wrap(data: EventData) -> Event[Any]:
    return Event(data=data)
