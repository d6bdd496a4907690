"""What wraps a handler call: the protocol, and how several become one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

#: A handler as the runtime calls it: an event and its delivery, or the lists of a batch.
Handle = Callable[[Any, Any], Awaitable[Any]]


class Middleware(Protocol):
    """Wraps every call of a consumer's handler. Raise `Retry`, `Reject` or anything else as a handler would."""

    async def __call__(self, event: Any, delivery: Any, call_next: Handle) -> Any:
        """Do something before or after `await call_next(event, delivery)`, or instead of it; return its result.

        Of a batch consumer, `event` and `delivery` are the lists.
        """
        ...


def compose(handle: Handle, middleware: Sequence[Middleware]) -> Handle:
    """Return a handler with the middleware around it; the first is the outermost."""
    for layer in reversed(middleware):
        handle = _wrap(layer, handle)
    return handle


def _wrap(layer: Middleware, inner: Handle) -> Handle:
    async def handle(event: Any, delivery: Any) -> Any:
        return await layer(event, delivery, inner)

    return handle
