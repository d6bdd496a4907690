"""What `@consumer` was put on: a function, a class, or anything else that can be called; its name and its place."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from hyperbus.declaration.signature import underlying
from hyperbus.errors import DeclarationError


class Target(NamedTuple):
    """What a declaration belongs to.

    Attributes:
        name: in snake_case; "" for a lambda.
        module: where it was declared.
        place: the same, and its name there, for people.
        handler: what is called with events, and whose signature counts.
        is_method: the handler is called with an instance before that.
        keeper: what the declaration is kept on, where that can be written to.
    """

    name: str
    module: str
    place: str
    handler: Callable[..., Any]
    is_method: bool
    keeper: Any


def target_of(decorated: Any, consumer_class: type, module: str) -> Target:
    """Return what `@consumer`, used in a module, was put on.

    Raises:
        DeclarationError: it cannot be a consumer; the message says what to write.
    """
    keeper = decorated.__func__ if isinstance(decorated, staticmethod) else decorated
    inner = keeper
    while isinstance(inner, functools.partial):
        inner = inner.func
    qualname = str(getattr(inner, "__qualname__", None) or type(inner).__qualname__)
    if inspect.isclass(keeper) or inspect.isfunction(keeper):
        module = keeper.__module__
    where = f"{module}.{qualname}"
    handler, is_method = _handler(keeper, consumer_class, where)
    name = (
        "" if "<" in qualname.rpartition(".")[2] else _snake_case(str(getattr(inner, "__name__", type(inner).__name__)))
    )
    return Target(name, module, where, handler, is_method, keeper)


def keep(decorated: Any, target: Target, attribute: str, declaration: object) -> Any:
    """Keep a declaration on what it belongs to; return what is to be used in its place.

    That is the thing itself. Around one that cannot be written to, such as a bound method, it is a `functools.partial`.
    """
    try:
        setattr(target.keeper, attribute, declaration)
    except (AttributeError, TypeError):
        wrapped: Any = functools.partial(target.keeper)
        setattr(wrapped, attribute, declaration)
        return wrapped
    return decorated


def _handler(keeper: Any, consumer_class: type, where: str) -> tuple[Callable[..., Any], bool]:
    if inspect.isclass(keeper):
        if not issubclass(keeper, consumer_class):
            raise DeclarationError(f"{where} has to be a subclass of hyperbus.Consumer")
        if getattr(keeper, "handle", None) is None:
            raise DeclarationError(f"{where} has no handle(self, event) method")
        is_method = not isinstance(inspect.getattr_static(keeper, "handle"), staticmethod | classmethod)
        return getattr(keeper, "handle"), is_method  # noqa: B009 - `Consumer` does not declare it
    if isinstance(keeper, consumer_class):
        if getattr(keeper, "handle", None) is None:
            raise DeclarationError(f"{where} has no handle(self, event) method")
        return getattr(keeper, "handle"), False  # noqa: B009
    if isinstance(keeper, classmethod) or (inspect.isfunction(keeper) and _takes_self(keeper)):
        raise DeclarationError(
            f"{where} is a method, and nobody would give it its instance: subclass hyperbus.Consumer, call the method "
            f"`handle` and decorate the class; or declare a bound one: consumer(...)(instance.method)"
        )
    if not callable(keeper):
        raise DeclarationError(
            f"{where} cannot be called with an event: decorate a function, or a subclass of hyperbus.Consumer"
        )
    return keeper, False


def _takes_self(function: Callable[..., Any]) -> bool:
    first = next(iter(inspect.signature(underlying(function)).parameters), "")
    return first in ("self", "cls")


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
