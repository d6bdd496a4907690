"""Event data: the user's own structs. A subclass with `type=` is an event type and names a stream."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from hyperbus.errors import DeclarationError, DuplicateTypeError
from hyperbus.event.retention import Declared, Keep, check_keep
from hyperbus.event.source import source_of

#: What an event type looks like: lower-case words joined by dots.
TYPE_PATTERN = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")


def check_type(name: str) -> str:
    """Return `name` if it can be an event type.

    Raises:
        DeclarationError: it cannot.
    """
    if not TYPE_PATTERN.fullmatch(name):
        raise DeclarationError(
            f"{name!r} cannot be an event type: use lower-case letters, digits and underscores, "
            f"joined by dots, such as 'workflow.started'"
        )
    return name


class EventDataMeta(msgspec.StructMeta):
    """Reads `type=` and `retention=` from the class line; msgspec refuses class keywords that it does not know."""

    event_type: str | None
    _hyperbus_keep: Keep | None

    def __new__(  # noqa: PYI034 - type checkers allow no Self in a metaclass
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        type: str | None = None,  # noqa: A002 - the public keyword, fixed by the design
        retention: Keep | None = None,
        **options: Any,
    ) -> EventDataMeta:
        """Create the struct and remember its type; a class without `type=` is a base for others.

        Unlike the type, the retention is inherited.
        """
        keep = None if retention is None else check_keep(retention)
        cls = super().__new__(mcs, name, bases, namespace, **options)
        cls.event_type = check_type(type) if type is not None else None
        if keep is not None or not hasattr(cls, "_hyperbus_keep"):
            cls._hyperbus_keep = keep
        return cls


class EventData(msgspec.Struct, metaclass=EventDataMeta):
    """What an event says. Subclass it with `type=`; the fields are a `msgspec.Struct`'s.

    `retention=Keep(...)` says how long entries of the type stay; without it the settings do.

    class WorkflowStarted(EventData, type="workflow.started"):
        contract: str
        network: str = "testnet"
    """

    event_type: ClassVar[str | None]

    if TYPE_CHECKING:

        def __init_subclass__(
            cls,
            *,
            type: str | None = None,  # noqa: A002
            retention: Keep | None = None,
            **options: Any,
        ) -> None: ...


def type_of(data: object) -> str:
    """Return the event type of a data object or class.

    Raises:
        DeclarationError: it has none.
    """
    event_type = getattr(data, "event_type", None)
    if isinstance(event_type, str):
        return event_type
    name = data.__name__ if isinstance(data, type) else type(data).__name__
    raise DeclarationError(f"{name} has no event type: write class {name}(EventData, type='...')")


def retention_of(cls: type[EventData]) -> Keep | None:
    """Return the retention that a class declares or inherits; None: it says nothing."""
    return cls._hyperbus_keep


def declared_retention(types: Mapping[str, type[EventData]]) -> dict[str, Declared | str]:
    """Return what each type declares: a policy and its class, or only the place of the class that declares none."""
    found: dict[str, Declared | str] = {}
    for event_type, cls in types.items():
        keep = retention_of(cls)
        found[event_type] = _place(cls) if keep is None else Declared(keep, _place(cls))
    return found


def event_types() -> dict[str, type[EventData]]:
    """Return every event type that is defined in this process, by name.

    The same module and class name defined again replaces the older class, as a reload does. So does the same name in
    the same file: a program that is started as `python -m app` and imported as `app` is loaded twice.

    Raises:
        DuplicateTypeError: two different classes claim one type.
    """
    with suppress(DuplicateTypeError):
        return _collect()
    # A class that nobody holds any more lives on until its reference cycle is broken. Not inside an `except`:
    # the error's own traceback would hold it.
    gc.collect()
    return _collect()


def _collect() -> dict[str, type[EventData]]:
    found: dict[str, type[EventData]] = {}
    for cls in _subclasses(EventData):
        if cls.event_type is None:
            continue
        other = found.get(cls.event_type)
        if other is not None and not _is_same(other, cls):
            raise DuplicateTypeError(
                f"two classes have the event type {cls.event_type!r}: {_place(other)} and {_place(cls)}; "
                f"give one of them another type=, or import the one where the other is"
            )
        found[cls.event_type] = cls
    return found


def _subclasses(cls: type[EventData]) -> Iterator[type[EventData]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _is_same(first: type, second: type) -> bool:
    """Tell whether two classes are one: defined again, or in a file that was loaded as two modules."""
    if _place(first) == _place(second):
        return True
    source = source_of(first.__module__, first.__qualname__)
    return source is not None and source == source_of(second.__module__, second.__qualname__)


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
