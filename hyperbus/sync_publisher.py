"""Publishing from code that has no event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from hyperbus.bus import Bus
from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, PublishUncertain
from hyperbus.event.envelope import Publishable

T = TypeVar("T")


class SyncPublisher:
    """Publishes from plain code, and from many threads at once. Use it as `with SyncPublisher(url) as publisher`.

    A thread of its own runs an event loop with a bus; publishes from several threads share round trips there.
    Options are those of `Bus`.
    """

    def __init__(self, url: str | None = None, **options: Any) -> None:
        self._make: Callable[[], Bus] = lambda: Bus(url, **options)
        self._bus: Bus | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        # What is asked under it is asked before the end, and gets an answer.
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            HyperbusError: as `Bus` does.
        """
        opened: list[BaseException | None] = []
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(opened, ready)), name="hyperbus publisher", daemon=True
        )
        self._thread.start()
        ready.wait()
        if opened[0] is not None:
            self._thread.join()
            raise opened[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what still waits, and close."""
        with self._lock:
            self._bus = None
        if self._loop is not None and self._stop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def publish(
        self,
        what: Publishable,
        *,
        workflow_id: str | None = None,
        correlation_id: str | None = None,
        source_agent: str | None = None,
        timeout: Seconds | None = None,
        once: bool = False,
        durability: str | None = None,
    ) -> str:
        """Store one event; return its entry id. Blocks; takes and raises what `Bus.publish` does."""
        return self._ask(
            lambda bus: bus.publish(
                what,
                workflow_id=workflow_id,
                correlation_id=correlation_id,
                source_agent=source_agent,
                timeout=timeout,
                once=once,
                durability=durability,
            )
        )

    def publish_many(
        self,
        events: Sequence[Publishable],
        *,
        timeout: Seconds | None = None,
        once: bool = False,
        durability: str | None = None,
    ) -> list[str]:
        """Store many events, in order; return their entry ids. Blocks; takes and raises as `Bus.publish_many` does."""
        return self._ask(lambda bus: bus.publish_many(events, timeout=timeout, once=once, durability=durability))

    async def _serve(self, opened: list[BaseException | None], ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            async with self._make() as bus:
                self._bus = bus
                opened.append(None)
                ready.set()
                await self._stop.wait()
        except BaseException as error:
            if ready.is_set():
                raise
            opened.append(error)
            ready.set()

    def _ask(self, ask: Callable[[Bus], Coroutine[Any, Any, T]]) -> T:
        with self._lock:
            if self._bus is None or self._loop is None:
                raise BusUnavailable("the publisher is not open; use it inside `with SyncPublisher(...)`")
            answer = asyncio.run_coroutine_threadsafe(ask(self._bus), self._loop)
        try:
            return answer.result()
        except concurrent.futures.CancelledError:
            raise PublishUncertain("the publisher was closed meanwhile; the event may be stored or not") from None
