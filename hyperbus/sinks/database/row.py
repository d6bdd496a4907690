"""Event and delivery → row. Total: whatever an event holds, it has a row, so that none can hold up its batch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from hyperbus.declaration.delivery import Delivery
from hyperbus.error_text import repr_of
from hyperbus.event.envelope import Event
from hyperbus.sinks.database.contract import Row
from hyperbus.sinks.database.marks import storable_key


class _OnlyData(msgspec.Struct):
    data: msgspec.Raw


_decoder = msgspec.json.Decoder(_OnlyData)


def row_of(event: Event[Any], delivery: Delivery) -> Row:
    """Return the row of an event. Its data are the entry's own bytes, unknown fields and all."""
    return Row(
        event_id=storable_key(event.id),
        type=_text(event.type),
        workflow_id=None if event.workflow_id is None else storable_key(event.workflow_id),
        timestamp=_utc(event.timestamp),
        source_agent=None if event.source_agent is None else _text(event.source_agent),
        data=_data(event, delivery.body),
        entry_id=delivery.entry_id,
        stream=_text(delivery.stream),
        written_at=datetime.now(UTC),
        group=storable_key(delivery.group),
    )


def _data(event: Event[Any], body: bytes) -> str:
    if body.startswith(b"{"):
        try:
            return bytes(_decoder.decode(body).data).decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # it was readable as an event, so there is another way to write it
    try:
        return msgspec.json.encode(event.data).decode()
    except Exception:  # noqa: BLE001 - the data may be of a user's class, which may do anything when it is looked at
        return msgspec.json.encode({"unencodable": _text(repr_of(event.data, 2000))}).decode()


def _text(text: str) -> str:
    """PostgreSQL has no NUL in texts; neither has lone surrogates."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _utc(time: datetime) -> datetime:
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    try:
        return time.astimezone(UTC)
    except OverflowError:  # the first or last hours of the calendar
        return time.replace(tzinfo=UTC)
