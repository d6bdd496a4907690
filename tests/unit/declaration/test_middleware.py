"""Middleware: how several wrap one handler."""

from __future__ import annotations

from typing import Any

import pytest

from hyperbus.declaration.middleware import Handle, Middleware, compose
from hyperbus.declaration.outcome import Reject


def recording(name: str, calls: list[str]) -> Middleware:
    async def middleware(event: Any, delivery: Any, call_next: Handle) -> Any:
        calls.append(f"{name} before")
        result = await call_next(event, delivery)
        calls.append(f"{name} after")
        return f"{name}({result})"

    return middleware


async def test_the_first_middleware_is_the_outermost() -> None:
    """It sees the call first and the result last."""
    calls: list[str] = []

    async def handle(event: Any, delivery: Any) -> Any:
        calls.append(f"handle {event} {delivery}")
        return "done"

    composed = compose(handle, [recording("outer", calls), recording("inner", calls)])
    assert await composed("event", "delivery") == "outer(inner(done))"
    assert calls == ["outer before", "inner before", "handle event delivery", "inner after", "outer after"]
    assert await composed("again", "delivery") == "outer(inner(done))"


async def test_a_handler_without_middleware_is_called_as_it_is() -> None:
    """Nothing is added to its way."""

    async def handle(event: Any, delivery: Any) -> Any: ...

    assert compose(handle, ()) is handle


async def test_middleware_may_change_replace_or_refuse_a_call() -> None:
    """What it passes on is what the next one gets."""

    async def handle(event: Any, delivery: Any) -> Any:
        return event

    async def double(event: Any, delivery: Any, call_next: Handle) -> Any:
        return await call_next(event * 2, delivery)

    async def refuse_twelve(event: Any, delivery: Any, call_next: Handle) -> Any:
        if event == 12:
            raise Reject("twelve")
        return await call_next(event, delivery) if event else "nothing"

    composed = compose(handle, [double, refuse_twelve])
    assert (await composed(2, None), await composed(0, None)) == (4, "nothing")
    with pytest.raises(Reject, match="twelve"):
        await composed(6, None)
