"""What a handler's annotation says: which event types it takes, one event or a list, with or without delivery."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from hyperbus.errors import DeclarationError
from hyperbus.event.data import EventData, type_of
from hyperbus.event.envelope import Event


@dataclass(frozen=True, slots=True)
class Signature:
    """What a handler takes.

    Attributes:
        data_types: the classes named in the annotation; empty for bare `Event`, which takes any.
        batch: it takes a list of events.
        wants_delivery: it takes a second argument.
        is_async: it is a coroutine function; a plain one runs in a thread.
    """

    data_types: tuple[type[EventData], ...]
    batch: bool
    wants_delivery: bool
    is_async: bool


def read_signature(
    handler: Callable[..., Any], *, method: bool, scope: Mapping[str, Any], name: str | None = None
) -> Signature:
    """Read a handler's signature. `scope` holds names that its annotations may use besides its module's.

    `name` is that of the consumer, for people; by default the handler's own.

    Raises:
        DeclarationError: it takes something that the runtime would not give it, or would not run when it is called.
    """
    function = underlying(handler)
    name = name or str(getattr(function, "__qualname__", function))
    _check_runs(name, function)
    try:
        parameters = list(inspect.signature(handler).parameters.values())[1 if method else 0 :]
    except (ValueError, TypeError) as error:
        raise DeclarationError(f"what {name} takes cannot be found out: wrap it in a function of (event)") from error
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_event = bool(positional) or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if not takes_event or len(required) > 2 or any(p.kind is p.KEYWORD_ONLY for p in required):  # noqa: PLR2004
        raise DeclarationError(f"{name} has to take (event) or (event, delivery)")
    hints = _hints(name, function, scope)
    data_types, batch = _read_annotation(name, hints.get(parameters[0].name, Event))
    return Signature(
        data_types=data_types,
        batch=batch,
        wants_delivery=len(positional) > 1,
        is_async=inspect.iscoroutinefunction(function),
    )


def underlying(handler: Any) -> Any:
    """Return the function that is called in the end, behind a `functools.partial` and an object that is callable."""
    while True:
        if isinstance(handler, functools.partial):
            handler = handler.func
        elif inspect.isroutine(handler) or inspect.isclass(handler) or not callable(handler):
            return handler
        else:
            handler = handler.__call__


def _check_runs(name: str, function: Any) -> None:
    code = getattr(function, "__code__", None)
    is_old_coroutine = code is not None and code.co_flags & inspect.CO_ITERABLE_COROUTINE
    if inspect.isasyncgenfunction(function) or (inspect.isgeneratorfunction(function) and not is_old_coroutine):
        raise DeclarationError(
            f"{name} is a generator, and nothing of it would run when it is called: drop its `yield`"
        )


def _hints(name: str, function: Any, scope: Mapping[str, Any]) -> dict[str, Any]:
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    try:
        return get_type_hints(function, vars(module) if module else {}, dict(scope))
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise DeclarationError(
            f"the annotation of {name} cannot be read: {error}; import that name at run time "
            f"(not under TYPE_CHECKING), or annotate the event as `Event` and pass types="
        ) from error


def _read_annotation(name: str, annotation: Any) -> tuple[tuple[type[EventData], ...], bool]:
    batch = get_origin(annotation) is list or annotation is list
    if batch:
        annotation = (get_args(annotation) or (Event,))[0]
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    data_types: list[type[EventData]] = []
    takes_any = False
    for member in members:
        if member is Event or member is Any:
            takes_any = True
            continue
        if get_origin(member) is not Event:
            raise DeclarationError(
                f"{name} takes {member!r}; annotate its event as Event, Event[SomeData], "
                f"Event[A] | Event[B], or list[...] of these"
            )
        (data_type,) = get_args(member)
        found = _data_types(name, data_type)
        takes_any = takes_any or not found
        data_types.extend(found)
    if data_types and takes_any:
        raise DeclarationError(f"{name} takes both Event[...] and bare Event; bare Event already takes any")
    return tuple(dict.fromkeys(data_types)), batch


def _data_types(name: str, data_type: Any) -> list[type[EventData]]:
    if data_type is Any or data_type is dict or get_origin(data_type) is dict:
        return []
    if get_origin(data_type) in (Union, types.UnionType):
        return [found for member in get_args(data_type) for found in _data_types(name, member)]
    if isinstance(data_type, type) and issubclass(data_type, EventData):
        type_of(data_type)
        return [data_type]
    raise DeclarationError(f"{name} takes Event[{data_type!r}]; the data has to be an EventData with a type")
