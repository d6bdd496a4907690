"""Event ⇄ bytes, in one pass by msgspec. The entry's field name says which codec wrote it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, Protocol

import msgspec

from hyperbus.error_text import describe, message_of
from hyperbus.errors import DecodeError, EncodeError
from hyperbus.event.envelope import Event
from hyperbus.interruption import is_from_signal


class Codec(Protocol):
    """One way to write events. Its methods are pure, and none blocks."""

    #: The name that users choose it by.
    name: str
    #: The one field of an entry that this codec wrote.
    field: bytes

    def encode(self, event: Event[Any]) -> bytes:
        """Write an event.

        Raises:
            EncodeError: its data holds something that the codec has no form for.
        """
        ...

    def encode_many(self, events: Sequence[Event[Any]]) -> list[bytes]:
        """Write events, much quicker than one at a time.

        Raises:
            EncodeError: one of them cannot be written.
        """
        ...

    def decoder(self, data_type: Any) -> Decoder:
        """Return a reader of events whose data is a `data_type` (a struct class, `dict`, or `Any`)."""
        ...


class Decoder(Protocol):
    """Reads the bytes of one codec into events of one data type.

    Attributes:
        quickly: does as `decode`, but raises anything: ask `decode` what is wrong. Saves a call for every event.
    """

    quickly: Callable[[bytes], Event[Any]]

    def decode(self, body: bytes) -> Event[Any]:
        """Read an event.

        Raises:
            DecodeError: the bytes are not an event, or its data does not fit.
        """
        ...


#: What of an envelope is a time.
_TIMES = ("timestamp", "deadline")


class _Decoder:
    def __init__(self, form: ModuleType, data_type: Any) -> None:
        self.quickly: Callable[[bytes], Event[Any]] = form.Decoder(Event[data_type]).decode
        self._form: Any = form
        self._class = getattr(data_type, "__qualname__", str(data_type))

    def decode(self, body: bytes) -> Event[Any]:
        try:
            return self._decode(body)
        except BaseException as error:  # a user's class takes part: its `__post_init__`, the defaults of its fields
            if is_from_signal(error):
                raise
            advice = self._advice() if "missing required field" in str(message_of(error)) else ""
            raise DecodeError(f"not an event: {message_of(error) or describe(error)}{advice}") from error

    def _advice(self) -> str:
        return (
            f"; entries from before {self._class} had that field lack it: give the field a default, "
            f'or, if it was only renamed, its old name on the wire: msgspec.field(name="...")'
        )

    def _decode(self, body: bytes) -> Event[Any]:
        try:
            return self.quickly(body)
        except msgspec.ValidationError:
            try:
                zoned = self._with_zones(body)
            except msgspec.MsgspecError:
                zoned = None  # no envelope at all: the first error says what is wrong
            if zoned is None:
                raise
        return self.quickly(zoned)

    def _with_zones(self, body: bytes) -> bytes | None:
        """Return an envelope whose times have a zone, UTC where they had none; None: they all had."""
        form, found = self._form, False
        envelope = form.decode(body, type=dict[str, msgspec.Raw])
        for name in _TIMES:
            if name in envelope:
                time = form.decode(envelope[name], type=datetime | None)
                if time is not None and time.tzinfo is None:
                    envelope[name], found = msgspec.Raw(form.encode(time.replace(tzinfo=UTC))), True
        return bytes(form.encode(envelope)) if found else None


class JsonCodec:
    """JSON, the default: readable in redis-cli, and by any language."""

    name = "json"
    field = b"data"

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode

    def encode(self, event: Event[Any]) -> bytes:
        """Write an event as a JSON object in UTF-8."""
        try:
            return self._encode(event)
        except _UNENCODABLE as error:
            raise _cannot_encode(event, self.name, error) from error

    def encode_many(self, events: Sequence[Event[Any]]) -> list[bytes]:
        """Write events, each as a JSON object in UTF-8."""
        try:
            return list(map(self._encode, events))
        except _UNENCODABLE:
            return list(map(self.encode, events))  # finds the one, and says what is wrong with it

    def decoder(self, data_type: Any) -> Decoder:
        """Return a reader of JSON events whose data is a `data_type`."""
        return _Decoder(msgspec.json, data_type)


class MessagePackCodec:
    """MessagePack: smaller and a little faster, and only for readers that know it."""

    name = "msgpack"
    field = b"msgpack"

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode

    def encode(self, event: Event[Any]) -> bytes:
        """Write an event as a MessagePack map."""
        try:
            return self._encode(event)
        except _UNENCODABLE as error:
            raise _cannot_encode(event, self.name, error) from error

    def encode_many(self, events: Sequence[Event[Any]]) -> list[bytes]:
        """Write events, each as a MessagePack map."""
        try:
            return list(map(self._encode, events))
        except _UNENCODABLE:
            return list(map(self.encode, events))  # finds the one, and says what is wrong with it

    def decoder(self, data_type: Any) -> Decoder:
        """Return a reader of MessagePack events whose data is a `data_type`."""
        return _Decoder(msgspec.msgpack, data_type)


_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


def codecs() -> tuple[Codec, ...]:
    """Return one of each codec that hyperbus can read; the first is the default for writing."""
    return (JsonCodec(), MessagePackCodec())


def _cannot_encode(event: Event[Any], codec: str, error: Exception) -> EncodeError:
    return EncodeError(
        f"{event.type} {event.id} cannot be written as {codec}: {error}; "
        f"use types that msgspec supports (numbers, str, bytes, datetime, list, dict, Struct, ...)"
    )
