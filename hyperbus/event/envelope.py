"""The envelope: an event's data, and what the bus knows about it. Field order is wire order."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Generic, NamedTuple

import msgspec
from msgspec.structs import replace
from typing_extensions import TypeVar

from hyperbus.event.data import EventData, type_of

DataT = TypeVar("DataT", default=Any)


# A generator of its own: a program that seeds `random` for its own ends would repeat ids. A system call for each id
# would cost as much as all the rest of it.
_random = random.Random()  # noqa: S311 - ids have to be unique, not secret
_random_bits = _random.getrandbits
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


class _Stamp(NamedTuple):
    """How ids of one millisecond begin."""

    millisecond: int
    text: str


class _Stamps:
    """Remembers the last stamp, which many ids in a row share. Threads may meet here: each sees a whole stamp."""

    last = _Stamp(-1, "")

    def at(self, millisecond: int) -> _Stamp:
        text = f"{millisecond:012x}"
        self.last = stamp = _Stamp(millisecond, f"{text[:8]}-{text[8:]}-7")
        return stamp


_stamps = _Stamps()


def new_id() -> str:
    """Return a new UUIDv7: 48 bits of Unix milliseconds, then 72 random bits (RFC 9562, section 5.7).

    The two bits beside the variant stay 0: so every part is a slice of one number, which is far quicker to write.
    """
    millisecond = time.time_ns() // 1_000_000
    stamp = _stamps.last
    if stamp[0] != millisecond:
        stamp = _stamps.at(millisecond)
    bits = _random_bits(72).to_bytes(9, "big").hex()
    return f"{stamp[1]}{bits[:3]}-8{bits[3:6]}-{bits[6:]}"


class EventMeta(msgspec.StructMeta):
    """Fills in id, type and timestamp when code makes an event.

    Decoding does not pass through here, so an entry that lacks them is refused and not repaired.
    """

    if not TYPE_CHECKING:  # for type checkers an event is made by its `__init__` below

        def __call__(cls, **fields: Any) -> Any:  # noqa: N805 - of a metaclass, self is a class
            """Make an event; `data` is required, everything else can be filled in."""
            if "id" not in fields:
                fields["id"] = new_id()
            if "type" not in fields:
                fields["type"] = type_of(fields.get("data"))
            if "timestamp" not in fields:
                fields["timestamp"] = datetime.now(UTC)
            return super().__call__(**fields)


#: A time as it is decoded: with its zone. The codecs read one without a zone as UTC.
Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Event(msgspec.Struct, Generic[DataT], metaclass=EventMeta, kw_only=True, omit_defaults=True, gc=False):
    """One event: its data, and the envelope that travels with it.

    Attributes:
        id: identity of the event, made by the producer (UUIDv7); stays the same however often it is delivered.
        type: what happened, such as `workflow.started`; names the stream.
        workflow_id: the workflow (run, session) that the event belongs to.
        timestamp: when the event was made; aware, UTC.
        source_agent: who published it.
        to: the agent it is meant for.
        version: version of the data's schema.
        correlation_id: shared by all events of one conversation.
        causation_id: id of the event that this one was published in answer to.
        reply_to: where an answer is expected.
        deadline: when an answer stops being useful.
        traceparent: W3C Trace Context.
        tracestate: W3C Trace Context.
        data: what the event says; an `EventData`, or a dict where its type is not declared in this process.
    """

    id: str
    type: str
    workflow_id: str | None = None
    timestamp: Time
    source_agent: str | None = None
    to: str | None = None
    version: int | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    reply_to: str | None = None
    deadline: Time | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    data: DataT

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            data: DataT,
            id: str = ...,  # noqa: A002 - the wire's own names
            type: str = ...,  # noqa: A002
            workflow_id: str | None = None,
            timestamp: datetime = ...,
            source_agent: str | None = None,
            to: str | None = None,
            version: int | None = None,
            correlation_id: str | None = None,
            causation_id: str | None = None,
            reply_to: str | None = None,
            deadline: datetime | None = None,
            traceparent: str | None = None,
            tracestate: str | None = None,
        ) -> None: ...


#: What can be published: an event, or bare data that the bus puts an envelope around.
Publishable = Event[Any] | EventData

# What `copy.copy` would call in the end. A copy that is filled in costs a third of a call of the class.
_model: Any = Event(id="", type="", timestamp=datetime.fromtimestamp(0, UTC), data=None)
_blank: Callable[[], Event[Any]] = _model.__copy__


def complete(
    what: Publishable,
    workflow_id: str | None = None,
    correlation_id: str | None = None,
    source_agent: str | None = None,
    own_agent: str | None = None,
) -> Event[Any]:
    """Return the event to publish: `what`, with an envelope if it has none, and with what is given here.

    `own_agent` is the `source_agent` of an event that has none. `what` stays as it is.
    """
    if not isinstance(what, Event):
        event = _blank()
        event.id = new_id()
        event.type = getattr(what, "event_type", None) or type_of(what)
        event.timestamp = datetime.now(UTC)
        event.data = what
        event.workflow_id = workflow_id
        event.correlation_id = correlation_id
        event.source_agent = source_agent or own_agent
        return event
    if source_agent is None:
        source_agent = what.source_agent or own_agent
    if workflow_id is None and correlation_id is None:
        return what if source_agent == what.source_agent else replace(what, source_agent=source_agent)
    return replace(
        what,
        workflow_id=what.workflow_id if workflow_id is None else workflow_id,
        correlation_id=what.correlation_id if correlation_id is None else correlation_id,
        source_agent=source_agent,
    )
