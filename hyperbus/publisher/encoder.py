"""Event → entry: which stream it goes to, how it is written, and whether it is too large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import Any

from hyperbus.errors import EventTooLargeError, HyperbusError
from hyperbus.event.checking import EventChecker
from hyperbus.event.codec import Codec
from hyperbus.event.data import check_type
from hyperbus.event.envelope import Event
from hyperbus.event.routing import stream_key
from hyperbus.transport import NewEntry

# What `NewEntry(...)` calls in the end; all the rest of that call would cost as much as writing a small event.
_new_entry: Callable[[tuple[str, bytes, bytes]], NewEntry] = partial(tuple.__new__, NewEntry)


class Encoder:
    """Turns events into entries. Sends nothing.

    Args:
        codec: how events are written.
        prefix: in the names of streams.
        max_bytes: a written event that is larger is refused.
        check: whether what consumers could not read is refused.
    """

    def __init__(self, codec: Codec, *, prefix: str, max_bytes: int, check: bool = True) -> None:
        self._encode = codec.encode
        self._encode_many = codec.encode_many
        self._field = codec.field
        self._prefix = prefix
        self._max_bytes = max_bytes
        self._checker = EventChecker(codec) if check else None
        self._routes: dict[str, str] = {}

    def encode(self, event: Event[Any]) -> NewEntry:
        """Return the entry that an event becomes.

        Raises:
            EncodeError: its type or data cannot be written, or not read again.
            EventTooLargeError: it is over the limit.
        """
        body = self._encode(event)
        if len(body) > self._max_bytes:
            raise EventTooLargeError(
                f"{event.type} {event.id} is {len(body)} bytes, over the limit of {self._max_bytes}; "
                f"store large data elsewhere and publish where it is, or raise max_event_bytes"
            )
        stream = self._routes.get(event.type) or self._route(event.type)
        checker = self._checker
        if checker is not None:
            # The quick half of `check`: a call would be felt in every publish.
            data, reader = event.data, checker.readers.get(event.type)
            if reader is None or reader[0] is not type(data) or not reader[1](event, data):
                checker.check(event, body)
        return _new_entry((stream, self._field, body))

    def encode_many(
        self, events: Sequence[Event[Any]], types: Sequence[str]
    ) -> tuple[list[NewEntry], list[tuple[int, HyperbusError]]]:
        """Return the entries of those that can be encoded, and the errors of the others by their place.

        Args:
            events: what to encode.
            types: the type of each.
        """
        try:
            bodies = self._encode_many(events)
            if max(map(len, bodies), default=0) <= self._max_bytes:
                streams = self._streams_of_each(types)
                if self._checker is not None:
                    self._checker.check_many(events, types, bodies)
                return list(map(_new_entry, zip(streams, repeat(self._field), bodies, strict=False))), []
        except HyperbusError:
            pass
        return self._judge_each(events)

    def streams_of(self, types: Sequence[str]) -> set[str]:
        """Return the streams that events of these types go to; one that is no type goes nowhere."""
        streams = set()
        for event_type in set(types):
            try:
                streams.add(self._routes.get(event_type) or self._route(event_type))
            except HyperbusError:
                continue  # it is told when the event is encoded
        return streams

    def _streams_of_each(self, types: Sequence[str]) -> list[str]:
        if len(set(types)) == 1:  # next to always
            return [self._routes.get(types[0]) or self._route(types[0])] * len(types)
        return [self._routes.get(event_type) or self._route(event_type) for event_type in types]

    def _judge_each(self, events: Sequence[Event[Any]]) -> tuple[list[NewEntry], list[tuple[int, HyperbusError]]]:
        entries: list[NewEntry] = []
        refused: list[tuple[int, HyperbusError]] = []
        for place, event in enumerate(events):
            try:
                entries.append(self.encode(event))
            except HyperbusError as error:
                refused.append((place, error))
        return entries, refused

    def _route(self, event_type: str) -> str:
        stream = self._routes[check_type(event_type)] = stream_key(self._prefix, event_type)
        return stream
