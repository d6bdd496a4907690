"""Whether consumers will be able to read an event: unless it is plainly right, it is read back before it is sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from hyperbus.errors import DecodeError, DuplicateTypeError, EncodeError
from hyperbus.event.codec import Codec, Decoder
from hyperbus.event.data import EventData, event_types
from hyperbus.event.envelope import Event
from hyperbus.event.plain_check import PlainCheck, never, plain_check, plain_dict_check

#: Event types whose reader is kept.
_MOST_KNOWN = 10_000
#: How JSON writes numbers that it has no form for, as msgspec does: readers find nothing where a number was.
_NULL = b"null"


class Reader(NamedTuple):
    """How consumers read a type.

    Attributes:
        data: the class of the data that was published when this was made; of another, it says nothing.
        is_plain: tells at a glance that an event is right.
        quickly: reads bytes, or raises anything.
        decoder: says what is wrong.
        may_hide: a number that JSON cannot hold may be read as None, and not be noticed.
    """

    data: type
    is_plain: PlainCheck
    quickly: Callable[[bytes], Event[Any]]
    decoder: Decoder
    may_hide: bool


class EventChecker:
    """Checks what was written, before it is sent.

    It is read by the class of the data, if the event's type is that class's own; else by the class that this process
    declares for the type; else as consumers read what nobody declared.

    Attributes:
        readers: how each type that was published is read.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.readers: dict[str, Reader] = {}

    def check(self, event: Event[Any], body: bytes) -> None:
        """Let pass what can be read.

        Raises:
            EncodeError: it cannot, or not as it was meant.
        """
        reader = self.readers.get(event.type)
        if reader is None or reader.data is not type(event.data):
            reader = self._new_reader(event)
        if reader.is_plain(event, event.data):
            return
        try:
            reader.quickly(body)
        except Exception:  # noqa: BLE001 - the decoder finds out what is wrong
            self._find_out(event, body, reader)
        if reader.may_hide and _NULL in body:
            _refuse_non_finite(event)

    def check_many(self, events: Sequence[Event[Any]], types: Sequence[str], bodies: Sequence[bytes]) -> None:
        """Let pass what can all be read; quicker than one by one where all are of one class.

        Raises:
            EncodeError: one of them cannot.
        """
        data = [event.data for event in events]
        if len(set(map(type, data))) == 1 and len(set(types)) == 1:
            reader = self.readers.get(types[0])
            if reader is None or reader.data is not type(data[0]):
                reader = self._new_reader(events[0])
            if all(map(reader.is_plain, events, data)):
                return
        for event, body in zip(events, bodies, strict=True):
            self.check(event, body)

    def _new_reader(self, event: Event[Any]) -> Reader:
        cls = type(event.data)
        read_as: Any = cls
        if not issubclass(cls, EventData) or cls.event_type != event.type:
            read_as = _declared(event.type) or dict[str, Any]
        try:
            decoder = self._codec.decoder(read_as)
        except Exception:  # noqa: BLE001 - annotations may name what is there for type checkers only
            read_as = dict[str, Any]
            decoder = self._codec.decoder(read_as)
        may_hide = self._codec.name == "json" and _may_hide(read_as)
        is_plain: PlainCheck = never
        if read_as is cls:
            is_plain = plain_check(cls)
        elif cls is dict and read_as == dict[str, Any]:
            is_plain = plain_dict_check(any_names=self._codec.name == "json")
        if len(self.readers) >= _MOST_KNOWN:
            self.readers.clear()
        reader = self.readers[event.type] = Reader(cls, is_plain, decoder.quickly, decoder, may_hide)
        return reader

    def _find_out(self, event: Event[Any], body: bytes, reader: Reader) -> None:
        if self._codec.name == "json":
            _refuse_non_finite(event)
        try:
            reader.decoder.decode(body)
        except DecodeError as error:
            raise EncodeError(
                f"{event.type} {event.id} is not sent, as no consumer could read it: {error}; give its fields "
                f"values of the types that its class declares"
            ) from None


def _declared(event_type: str) -> type[EventData] | None:
    try:
        return event_types().get(event_type)
    except DuplicateTypeError:
        return None


def _may_hide(read_as: Any) -> bool:
    """Tell whether a reader takes None where a number can be: then it does not notice one that was lost."""
    try:
        kinds = {type(node) for node in _nodes(msgspec.inspect.type_info(read_as), set())}
    except (TypeError, NameError):
        return True
    return msgspec.inspect.AnyType in kinds or {msgspec.inspect.FloatType, msgspec.inspect.NoneType} <= kinds


def _nodes(node: Any, seen: set[int]) -> Iterator[Any]:
    """Return the descriptions of a type and of all that it is made of."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, list | tuple):
        for each in node:
            yield from _nodes(each, seen)
    elif isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field):
        yield node
        for name in node.__struct_fields__:
            yield from _nodes(getattr(node, name), seen)


def _refuse_non_finite(event: Event[Any]) -> None:
    place = next(_non_finite(msgspec.to_builtins(event.data), "data"), None)
    if place is not None:
        raise EncodeError(
            f"{event.type} {event.id} is not sent: {place} is no finite number, which JSON has no form for; "
            f"publish None and declare `float | None`, or set codec=msgpack"
        )


def _non_finite(value: Any, place: str) -> Iterator[str]:
    """Return the places of numbers that JSON has no form for."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield place
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _non_finite(item, f"{place}.{key}")
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield from _non_finite(item, f"{place}[{index}]")
