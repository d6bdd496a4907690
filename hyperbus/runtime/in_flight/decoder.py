"""Entry → event, for one consumer: which codec wrote it, and which class its data becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hyperbus.error_text import describe
from hyperbus.errors import DecodeError
from hyperbus.event.codec import Codec
from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event
from hyperbus.interruption import is_from_signal
from hyperbus.runtime.in_flight.received import Received


class EventDecoder:
    """Decodes entries, with one prepared decoder for each event type and codec."""

    def __init__(self, codecs: Sequence[Codec], data_types: Mapping[str, type[EventData]]) -> None:
        self._codecs = {codec.field: codec for codec in codecs}
        self._first = codecs[0].field
        self._data_types = data_types
        self._decoders: dict[tuple[str, bytes], Callable[[bytes], Event[Any]]] = {}
        #: Decoders of the first codec, by event type alone: most entries take this way.
        self._usual: dict[str, Callable[[bytes], Event[Any]]] = {}

    def decode(self, received: Received) -> Event[Any]:
        """Return the event that an entry holds.

        Raises:
            DecodeError: it holds none that this consumer can read.
        """
        fields = received.fields
        usual = self._usual.get(received.event_type)
        if usual is not None and len(fields) == 2 and fields[0] == self._first:  # noqa: PLR2004 - one field
            try:
                event = usual(fields[1])
                if event.type == received.event_type:
                    return event
            except BaseException as error:
                if is_from_signal(error):
                    raise
        name, body = self._find(fields)
        try:
            event = self._decoder(received.event_type, name)(body)
        except DecodeError:
            raise
        except BaseException as error:  # a user's class takes part in decoding: its `__post_init__`, its defaults
            if is_from_signal(error):
                raise
            raise DecodeError(f"not an event: {describe(error)}") from error
        if event.type != received.event_type:
            raise DecodeError(
                f"it says that it is {event.type!r:.200}, and lies in a stream of {received.event_type!r:.200}"
            )
        return event

    def decode_many(self, received: Sequence[Received]) -> list[Event[Any]] | None:
        """Return the events that entries hold; None if one of them takes a closer look: then `decode` each of them.

        Several at a time take half as long as one by one, beside msgspec's own time.
        """
        usual, first = self._usual, self._first
        try:
            events = [
                usual[item.event_type](item.fields[1])
                for item in received
                if item.fields[0] == first and len(item.fields) == 2  # noqa: PLR2004 - one field
            ]
            if len(events) < len(received):
                return None
            for event, item in zip(events, received, strict=False):
                if event.type != item.event_type:
                    return None
        except BaseException as error:
            if is_from_signal(error):
                raise
            return None
        return events

    def body_of(self, received: Received) -> bytes:
        """Return the bytes that `decode` read an event from."""
        return self._find(received.fields)[1]

    def _decoder(self, event_type: str, name: bytes) -> Callable[[bytes], Event[Any]]:
        decode = self._decoders.get((event_type, name))
        if decode is None:
            decoder = self._codecs[name].decoder(self._data_types.get(event_type, dict[str, Any]))
            decode = self._decoders[event_type, name] = decoder.decode
            if name == self._first:
                self._usual[event_type] = decoder.quickly
        return decode

    def _find(self, fields: Sequence[bytes]) -> tuple[bytes, bytes]:
        for name, body in zip(fields[::2], fields[1::2], strict=True):
            if name in self._codecs:
                return name, body
        known = ", ".join(field.decode() for field in self._codecs)
        found = ", ".join(repr(name)[1:] for name in fields[:20:2]) or "no field at all"
        raise DecodeError(f"an entry of hyperbus has one field named {known}; this one has {found}"[:1000])
