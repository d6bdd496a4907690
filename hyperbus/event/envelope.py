"""The envelope: an event's data, and what the bus knows about it. Field order is wire order."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic

import msgspec
from typing_extensions import TypeVar

from hyperbus.event.data import EventData, type_of

DataT = TypeVar("DataT", default=Any)


def new_id() -> str:
    """Return a new UUIDv7: 48 bits of Unix milliseconds, then random bits (RFC 9562, section 5.7)."""
    stamp = time.time_ns() // 1_000_000
    bits = int.from_bytes(os.urandom(10), "big")
    high = (stamp << 16) | 0x7000 | (bits >> 68 & 0x0FFF)
    low = 0x8000_0000_0000_0000 | (bits & 0x3FFF_FFFF_FFFF_FFFF)
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


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
    timestamp: datetime
    source_agent: str | None = None
    to: str | None = None
    version: int | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    reply_to: str | None = None
    deadline: datetime | None = None
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
