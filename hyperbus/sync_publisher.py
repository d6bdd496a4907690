"""Publishing from code that has no event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from hyperbus.bus import Bus
from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, HyperbusError
from hyperbus.event.envelope import Publishable
from hyperbus.forks import tell_after_fork
from hyperbus.home import Home

T = TypeVar("T")


class SyncPublisher:
    """Publishes from plain code, and from many threads at once. Use it as `with SyncPublisher(url) as publisher`.

    A thread of its own runs an event loop with a bus; publishes from several threads share round trips there.
    Options are those of `Bus`. In a forked child (`gunicorn --preload`, Celery, multiprocessing) one that is open
    opens itself anew at the first publish: threads and connections are the parent's.
    """

    def __init__(self, url: str | None = None, **options: Any) -> None:
        self._make: Callable[[], Bus] = lambda: Bus(url, **options)
        # What is asked under it is asked before the end, and gets an answer.
        self._lock = threading.Lock()
        self._serving: _Serving | None = None
        self._is_inherited = False
        self._cannot_reopen = "transport" in options
        tell_after_fork(self)

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            HyperbusError: it is open already, or as `Bus` does.
        """
        with self._lock:
            if self._serving is not None:
                raise HyperbusError("this publisher is open already: open another, or leave it first")
            self._is_inherited = False
            self._serving = _Serving(self._make)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what still waits, and close. Twice is safe."""
        with self._lock:
            serving, self._serving = self._serving, None
            self._is_inherited = False
        if serving is not None:
            serving.stop()

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

    def after_fork(self) -> None:
        """Forget the thread and its bus, in a forked child: they are the parent's."""
        self._lock = threading.Lock()  # a thread of the parent may hold the old one, for ever
        self._is_inherited = self._is_inherited or self._serving is not None
        self._serving = None

    def _ask(self, ask: Callable[[Bus], Coroutine[Any, Any, T]]) -> T:
        with self._lock:
            if self._serving is None and self._is_inherited:
                self._serving = self._reopened()
            serving = self._serving
            if serving is None:
                raise BusUnavailable("the publisher is not open; use it inside `with SyncPublisher(...)`")
            wait = serving.begin(ask)
        return wait()

    def _reopened(self) -> _Serving:
        """Open it in a forked child.

        Raises:
            BusUnavailable: that would be another place than the parent's.
        """
        if not self._cannot_reopen:
            serving = _Serving(self._make)
            if serving.bus.transport.description != "memory://":
                self._is_inherited = False
                return serving
            serving.stop()
        raise BusUnavailable(
            "this process was forked after the publisher was opened, and does not share its memory or its transport: "
            "nothing was sent; open a publisher in this process"
        )


class _Serving:
    """A thread with an event loop and an open bus, from its making until it is stopped.

    Attributes:
        bus: the bus.
    """

    bus: Bus

    def __init__(self, make: Callable[[], Bus]) -> None:
        self._make = make
        self._opened = threading.Event()
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="hyperbus publisher", daemon=True)
        self._thread.start()
        self._opened.wait()
        for error in self._errors:
            self._thread.join()
            raise error

    def begin(self, ask: Callable[[Bus], Coroutine[Any, Any, T]]) -> Callable[[], T]:
        """Let the bus do something; return what waits for it."""
        return self._home.begin(lambda: ask(self.bus))

    def stop(self) -> None:
        """Close the bus, and wait for the end of the thread."""
        with suppress(RuntimeError):  # it has ended by itself
            self._home.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._opened.is_set():
                raise
            self._errors.append(error)
            self._opened.set()

    async def _serve(self) -> None:
        self._home = Home()
        self._stopping = asyncio.Event()
        async with self._make() as self.bus:
            self._opened.set()
            await self._stopping.wait()
