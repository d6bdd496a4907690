"""What `order_by=` means: the key of an event, by which its consumer keeps an order. Pure."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hyperbus.errors import DeclarationError
from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event

#: Returns the key of an event; None: it has none, and nothing waits for it.
KeyOf = Callable[[Event[Any]], str | None]
#: What may be given as `order_by=`.
OrderBy = str | KeyOf

_ENVELOPE = ("workflow_id", "source_agent")
_DATA = "data."


def key_function(order_by: OrderBy | None) -> KeyOf:
    """Return the function that gives an event's key.

    Raises:
        DeclarationError: `order_by` is none of the words that it can be.
    """
    if order_by is None:
        return _no_key
    if callable(order_by):
        return _as_text(order_by)
    if order_by in _ENVELOPE:
        return _of_envelope(order_by)
    field = order_by.removeprefix(_DATA) if isinstance(order_by, str) else ""
    if field != order_by and field.isidentifier() and not keyword.iskeyword(field):
        return _of_data(field)
    raise DeclarationError(
        f"order_by={order_by!r} names no key: say 'workflow_id', 'source_agent', 'data.<field>', "
        f"or give a function that takes an event and returns its key"
    )


def check_field(order_by: OrderBy | None, data_types: Iterable[type[EventData]]) -> None:
    """Check that at least one of the classes that are all a consumer takes has the field of `order_by`.

    Raises:
        DeclarationError: none has it, so that there would never be an order.
    """
    if not isinstance(order_by, str) or not order_by.startswith(_DATA):
        return
    field = order_by.removeprefix(_DATA)
    if not any(hasattr(data_type, field) for data_type in data_types):
        raise DeclarationError(f"order_by={order_by!r}: no event of this consumer has a field {field!r} in its data")


def _no_key(_event: Event[Any]) -> str | None:
    return None


def _text(value: Any) -> str | None:
    # an instance of a subclass of `str` would go on answering for itself, as a key among others
    return None if value is None else str.__getitem__(str(value), slice(None))


def _as_text(function: Callable[[Event[Any]], Any]) -> KeyOf:
    return lambda event: _text(function(event))


def _of_envelope(field: str) -> KeyOf:
    return lambda event: _text(getattr(event, field))


def _of_data(field: str) -> KeyOf:
    def key_of(event: Event[Any]) -> str | None:
        data = event.data
        return _text(data.get(field) if isinstance(data, Mapping) else getattr(data, field, None))

    return key_of
