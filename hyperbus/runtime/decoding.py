"""Entry → event, for one consumer: which codec wrote it, and which class its data becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hyperbus.errors import DecodeError
from hyperbus.event.codec import Codec
from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event
from hyperbus.runtime.inbox import Received

#: An event, and the bytes that it was read from.
Decoded = tuple[Event[Any], bytes]


class EventDecoder:
    """Decodes entries, with one prepared decoder for each event type and codec."""

    def __init__(self, codecs: Sequence[Codec], data_types: Mapping[str, type[EventData]]) -> None:
        self._codecs = {codec.field: codec for codec in codecs}
        self._data_types = data_types
        self._decoders: dict[tuple[str, bytes], Callable[[bytes], Event[Any]]] = {}

    def decode(self, received: Received) -> Decoded:
        """Return the event that an entry holds.

        Raises:
            DecodeError: it holds none that this consumer can read.
        """
        fields = received.entry.fields
        key = (received.event_type, fields[0] if fields else b"")
        decode = self._decoders.get(key)
        if decode is None:
            key, decode = self._prepare(received.event_type, fields)
        body = fields[1] if fields[0] == key[1] else fields[fields.index(key[1]) + 1]
        return decode(body), body

    def _prepare(
        self, event_type: str, fields: Sequence[bytes]
    ) -> tuple[tuple[str, bytes], Callable[[bytes], Event[Any]]]:
        for name in fields[::2]:
            codec = self._codecs.get(name)
            if codec is not None:
                key = (event_type, name)
                data_type = self._data_types.get(event_type, dict[str, Any])
                self._decoders[key] = codec.decoder(data_type).decode
                return key, self._decoders[key]
        known = ", ".join(field.decode() for field in self._codecs)
        found = ", ".join(repr(name)[1:] for name in fields[:20:2]) or "no field at all"
        raise DecodeError(f"an entry of hyperbus has one field named {known}; this one has {found}"[:1000])
