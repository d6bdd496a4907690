"""The user's handler in the shapes that the runtime calls: awaited, with a delivery beside the event or without."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import AsyncGeneratorType, GeneratorType
from typing import Any, NamedTuple

from hyperbus.clock import Seconds
from hyperbus.declaration.consumer import Consumer, Declaration
from hyperbus.declaration.middleware import Handle, compose
from hyperbus.errors import DeclarationError
from hyperbus.home import end_child

#: How often what a handler returned may turn out, once awaited, to be something else to await.
_MOST_AWAITED = 10


def handler_threads(declaration: Declaration) -> ThreadPoolExecutor | None:
    """Return the threads that a handler which is a plain function runs in; None for a coroutine function."""
    if declaration.signature.is_async:
        return None
    return ThreadPoolExecutor(declaration.thread_limit, thread_name_prefix=f"hyperbus {declaration.name}")


class Handler(NamedTuple):
    """The two ways to call a handler, with its timeout and middleware around it.

    Attributes:
        declaration: what was declared of it.
        with_delivery: takes an event and its delivery, or the lists of a batch.
        alone: takes an event; only for a consumer that has no use for deliveries.
    """

    declaration: Declaration
    with_delivery: Handle
    alone: Callable[[Any], Awaitable[Any]]


def handler_of(target: Any, declaration: Declaration, threads: ThreadPoolExecutor | None) -> Handler:
    """Return the handler of a decorated function, or of an instance of a decorated class."""
    # `handle` is looked up by name: `Consumer` does not declare it, so that an override may take less
    call: Callable[..., Any] = getattr(target, "handle") if isinstance(target, Consumer) else target  # noqa: B009
    handle = _adapted(call, declaration, threads)
    if declaration.middleware:
        handle = compose(_completed(handle), declaration.middleware)
    if threads is None and declaration.timeout is None and not declaration.middleware:
        # nothing is around it, and most are like that: a call less for every event
        return Handler(declaration, handle, call)
    return Handler(declaration, handle, lambda event: handle(event, None))


def _adapted(call: Callable[..., Any], declaration: Declaration, threads: ThreadPoolExecutor | None) -> Handle:
    wants_delivery = declaration.signature.wants_delivery
    if threads is None:
        handle: Handle = call if wants_delivery else lambda event, _delivery: call(event)
        return handle if declaration.timeout is None else _limited(handle, declaration.timeout)

    async def in_thread(event: Any, delivery: Any) -> Any:
        arguments = (event, delivery) if wants_delivery else (event,)
        context = contextvars.copy_context()
        running = asyncio.get_running_loop().run_in_executor(threads, lambda: context.run(_tried, call, arguments))
        returned, error = await running
        if error is None:
            return returned
        try:
            raise error
        finally:
            del error  # which holds this frame

    return in_thread if declaration.timeout is None else _limited(in_thread, declaration.timeout)


def _limited(handle: Handle, timeout: Seconds) -> Handle:
    """Return a handler that fails when it takes too long. A plain function's thread cannot be stopped: it runs on."""

    async def limited(event: Any, delivery: Any) -> Any:
        try:
            async with asyncio.timeout(timeout) as limit:
                return await whole(await handle(event, delivery))
        except TimeoutError as error:
            if limit.expired():
                raise TimeoutError(f"the handler took longer than its timeout of {timeout:g} s") from error
            raise

    return limited


def _completed(handle: Handle) -> Handle:
    """Return a handler that is over when it returns, whatever it returns."""

    async def completed(event: Any, delivery: Any) -> Any:
        return await whole(await handle(event, delivery))

    return completed


def _tried(call: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    """Return what a call in a thread returned and what it raised: not every exception can be put into a future."""
    parent = os.getpid()
    try:
        returned = call(*arguments)
    except BaseException as error:  # noqa: BLE001 - it is raised again, on the event loop
        if os.getpid() != parent:
            end_child()
        return None, error
    if os.getpid() != parent:
        end_child()  # there is no event loop here, and the thread would wait for ever
    return returned, None


async def whole(returned: Any) -> Any:
    """Return what a handler returned in the end: what can be awaited is awaited first, be it a coroutine or a future.

    Raises:
        DeclarationError: it is a generator, of which nothing has run.
        BaseException: what was awaited raised it.
    """
    for _ in range(_MOST_AWAITED):
        kind = type(returned)
        if issubclass(kind, Future):
            returned = await asyncio.wrap_future(returned)
        elif hasattr(kind, "__await__") or (kind is GeneratorType and inspect.isawaitable(returned)):
            returned = await returned
        else:
            break
    if issubclass(type(returned), GeneratorType | AsyncGeneratorType):
        raise DeclarationError(
            "the handler returned a generator, of which nothing has run: let it await, or loop, and return None"
        )
    return returned
