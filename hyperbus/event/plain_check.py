"""A quick look at an event before it is sent: whether it is plainly as its class declares.

It costs a fifth of reading the event back. What is not plain is not wrong: it takes that closer look.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from math import isfinite
from typing import Any
from uuid import UUID

from msgspec import inspect

from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event

#: Tells whether an event, and its data, are plainly right.
PlainCheck = Callable[[Event[Any], Any], bool]

#: Types of which every value, without constraints, can be written and read; and how a value of them is known.
_PLAIN: dict[type[inspect.Type], str] = {
    inspect.StrType: "type({0}) is str",
    inspect.IntType: "type({0}) is int",
    inspect.BoolType: "type({0}) is bool",
    inspect.BytesType: "type({0}) is bytes",
    inspect.UUIDType: "type({0}) is UUID",
    inspect.DateTimeType: "type({0}) is datetime",
    inspect.FloatType: "type({0}) is float and {0} - {0} == 0.0",  # neither infinite nor no number
    inspect.NoneType: "{0} is None",
}
#: The same of what a dict holds: its names, its values, and its values where some are numbers that may be infinite.
_NAMES = frozenset({str})
_SIMPLE = frozenset({str, int, bool, type(None)})
_NUMBERS = _SIMPLE | {float}
_TEXTS = ("workflow_id", "source_agent", "correlation_id", "causation_id")
_RARE = ("to", "version", "reply_to", "deadline", "traceparent", "tracestate")
_ENVELOPE = (
    "type(e.id) is str",
    "type(e.timestamp) is datetime",
    *(f"(e.{name} is None or type(e.{name}) is str)" for name in _TEXTS),
    *(f"e.{name} is None" for name in _RARE),
)


def plain_check(cls: type[EventData]) -> PlainCheck:
    """Return what tells whether an event with such data is plainly right; for classes that are not simple, `never`.

    The check is written as code, as `dataclasses` does it: a loop over the fields would cost as much as reading back.
    """
    if hasattr(cls, "__post_init__"):
        return never
    try:
        described = inspect.type_info(cls)
    except (TypeError, NameError):
        return never
    assert isinstance(described, inspect.StructType)
    conditions = [_condition(field.type, f"d.{field.name}") for field in described.fields]
    if None in conditions:
        return never
    source = f"lambda e, d: {' and '.join((*_ENVELOPE, *filter(None, conditions)))}"
    check: PlainCheck = eval(source, {"datetime": datetime, "UUID": UUID})  # noqa: S307 - it holds names of fields
    return check


def plain_dict_check(*, any_names: bool) -> PlainCheck:
    """Return what tells whether an event is plainly right whose data is a dict, and is read as one.

    `any_names`: the codec makes texts of the names in it, whatever they are.
    """
    source = f"lambda e, d: {' and '.join(_ENVELOPE)}"
    is_right: PlainCheck = eval(source, {"datetime": datetime})  # noqa: S307 - it is all ours

    def check(event: Event[Any], data: Any) -> bool:
        values = data.values()
        return (
            (_SIMPLE.issuperset(map(type, values)) or _are_finite(values))
            and is_right(event, data)
            and (any_names or _NAMES.issuperset(map(type, data)))
        )

    return check


def _are_finite(values: Collection[Any]) -> bool:
    """Tell whether all values are simple, and none of them is a number that is infinite, or none."""
    return _NUMBERS.issuperset(map(type, values)) and all(map(isfinite, filter(_is_float, values)))


def _is_float(value: object) -> bool:
    return type(value) is float


def never(_event: Event[Any], _data: Any) -> bool:
    """Take no event for plainly right."""
    return False


def _condition(kind: inspect.Type, value: str) -> str | None:
    """Return code that is true of plain values of a type; None for a type that is not plain."""
    if isinstance(kind, inspect.UnionType):
        members = [_condition(member, value) for member in sorted(kind.types, key=_is_something)]
        return None if None in members else f"({' or '.join(f'({member})' for member in members)})"
    code = _PLAIN.get(type(kind))
    is_bound = any(getattr(kind, name) is not None for name in kind.__struct_fields__)
    return None if code is None or is_bound else code.format(value)


def _is_something(kind: inspect.Type) -> bool:
    return not isinstance(kind, inspect.NoneType)
