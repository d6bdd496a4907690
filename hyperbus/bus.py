"""The bus: a thin facade that joins its neighbours. Nothing below knows it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from hyperbus.clock import Clock, Seconds, SystemClock
from hyperbus.declaration.consumer import check_declarations, declaration_of, distinct_consumers
from hyperbus.error_text import describe, error_info
from hyperbus.errors import AuthenticationError, BusUnavailable, HyperbusError, InvalidSettingError
from hyperbus.event.codec import codecs
from hyperbus.event.data import EventData, event_types
from hyperbus.event.envelope import Event, Publishable
from hyperbus.event.routing import check_name
from hyperbus.home import Home
from hyperbus.logger import get_logger
from hyperbus.observability.signal_log import SignalLog
from hyperbus.process_signals import ProcessSignals
from hyperbus.publisher import EventPublication, LocalHandler, ManyPublication, PublishCalls, Publisher, PublishLimits
from hyperbus.settings import DEFAULT_URL, Settings, load_settings
from hyperbus.signals import Announcer, Listener
from hyperbus.transport import Transport
from hyperbus.transports.connect import connect

# The runtime is imported where it is first needed: who only publishes goes without its many files.
if TYPE_CHECKING:
    from hyperbus.runtime.iteration import Reading
    from hyperbus.runtime.services import Services
    from hyperbus.runtime.worker import Worker

DataT = TypeVar("DataT", bound=EventData)


class Bus:
    """Publishes events and runs consumers. Use it as `async with Bus(...) as bus`.

    Args:
        url: where the events are kept: `redis://`, `rediss://`, `unix://`, `embedded://DIR` or `memory://`. By default
            `$HYPERBUS_URL`, else an embedded server in the folder `.hyperbus`.
        source_agent: the `source_agent` of events that do not have one; by default the setting.
        prefix: the part of every stream key before the first colon.
        transport: a transport of your own, instead of a URL.
        fallback: "memory" carries on in memory, loudly, when the server cannot be reached at the start. A server that
            refuses the password was reached.
        listeners: called with every signal (`hyperbus.signals`).
        settings: settings that were loaded already; by default the environment's and pyproject.toml's.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        source_agent: str | None = None,
        prefix: str | None = None,
        transport: Transport | None = None,
        fallback: Literal["memory"] | None = None,
        listeners: Sequence[Listener] = (),
        settings: Settings | None = None,
    ) -> None:
        self._settings = settings or load_settings()
        self._prefix = check_name("prefix", prefix or self._settings.prefix)
        self._url = url or self._settings.url
        self._transport = transport
        if fallback not in (None, "memory"):
            raise InvalidSettingError(f"fallback={fallback!r} has to be None or 'memory'")
        self._fallback = fallback
        self._signal_log = SignalLog()  # whoever runs consumers hears of their failures, wherever that is
        self._announcer = Announcer([*listeners, self._signal_log])
        self._clock: Clock = SystemClock()
        self._calls = PublishCalls(self._announcer, source_agent or self._settings.source_agent or None)
        self._home: Home | None = None
        self._stack = AsyncExitStack()
        self._workers: list[Worker] = []
        self._services: Services | None = None
        self._services_lock = asyncio.Lock()
        self._log = get_logger("hyperbus")

    # -- opening and closing

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BusUnavailable, AuthenticationError, UnsupportedServerError: the server cannot be used.
            DuplicateTypeError: two event classes claim one type.
            HyperbusError: it is open already.
        """
        if self._home is not None:
            self._home.check()
            raise HyperbusError("this bus is open already: open another, or leave it first")
        event_types()
        self._home = Home()
        try:
            self._transport = await self._open_transport()
            self._stack.push_async_callback(self._transport.close)
            publisher = self._new_publisher(self._transport)
            await publisher.start()
            self._stack.push_async_callback(publisher.stop)
            self._calls.open(publisher, self._home)
        except BaseException:
            self._home = None
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what still waits, and close. In a forked child it does nothing: what is open is the parent's."""
        if self._home is None or self._home.is_inherited:
            return
        self._home.check()
        try:
            await self._stack.aclose()
        finally:
            self._signal_log.close()
            self._calls.close()
            self._home = self._services = None

    @property
    def transport(self) -> Transport:
        """Where the events are kept; once the bus is open."""
        if self._transport is None or not self._calls.is_open:
            raise BusUnavailable("the bus is not open; use it inside `async with Bus(...)`")
        return self._transport

    @property
    def prefix(self) -> str:
        """The part of every stream key before the first colon."""
        return self._prefix

    # -- the way in

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
    ) -> Coroutine[Any, Any, str]:
        """Store one event; return its entry id. Waits for room and for the answer, `timeout` seconds at most.

        Nothing is sent before it is awaited, or made a task; when it never is, that is logged as an error, and counted.
        What is given here wins over what the event has. With `once`, repeats of an event id add nothing, and what may
        be stored or not is sent again until the timeout. `durability` ("replica:N", "disk") waits for more than the
        server's memory. See docs/durability.md.

        Raises:
            EncodeError, EventTooLargeError, DurabilityUnsupported: it cannot be published; nothing was sent.
            BusUnavailable: it was not sent.
            PublishUncertain: it was sent, and no answer came: it may be stored or not.
            PublishRefusedError: the server said no.
            NotDurable: it is stored, and `durability` was not reached in time.
        """
        calls = self._calls
        return EventPublication(
            calls.not_awaited, what, None, calls, workflow_id, correlation_id, source_agent, timeout, once, durability
        )

    def publish_many(
        self,
        events: Sequence[Publishable],
        *,
        timeout: Seconds | None = None,
        once: bool = False,
        durability: str | None = None,
    ) -> Coroutine[Any, Any, list[str]]:
        """Store many events, in order; return their entry ids, in order. They go out while later ones are written.

        Each is judged by itself: one that cannot be encoded does not hold back the others. To be awaited, as
        `publish`, whose `once` and `durability` these are.

        Raises:
            PublishFailed: some were not stored, or it is not known; its `results` say which.
            BusUnavailable, DurabilityUnsupported: none was sent.
        """
        calls = self._calls
        return ManyPublication(calls.not_awaited, events, None, calls, timeout, once, durability)

    def on_publish(self, pattern: str, handler: LocalHandler) -> None:
        """Call `handler` in this process after each event whose type matches `pattern` was stored by this bus."""
        self._calls.local.add(pattern, handler)

    # -- the way out

    async def run(self, *consumers: object) -> None:
        """Run consumers until SIGTERM, SIGINT or cancellation, then drain. A second signal stops at once.

        In the main thread only. Whoever had these signals before has them again afterwards.

        Raises:
            HyperbusError: this is another thread, or see `running`.
        """
        stopped = asyncio.Event()
        task = asyncio.current_task()

        def stop() -> None:
            if stopped.is_set() and task is not None:
                task.cancel()
            stopped.set()

        with ProcessSignals({signal.SIGTERM: stop, signal.SIGINT: stop}):
            async with self.running(*consumers):
                await stopped.wait()

    @asynccontextmanager
    async def running(self, *consumers: object) -> AsyncGenerator[None]:
        """Run consumers beside other code, which begins once every one of them is ready; takes no signals.

        They drain when that code is left, by an error or a cancellation too; a second cancellation stops at once.

        Raises:
            DeclarationError: they cannot run beside each other.
            HyperbusError: one could not start, or failed.
        """
        distinct = distinct_consumers(consumers)
        check_declarations([declaration_of(consumer) for consumer in distinct])
        from hyperbus.runtime.worker import Worker

        services = await self._open_services()
        workers = [Worker(consumer, services) for consumer in distinct]
        self._workers += workers
        left_by: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                for worker in workers:
                    tasks.create_task(worker.run(), name=f"hyperbus worker {worker.declaration.name}")
                try:
                    for worker in workers:
                        await worker.ready.wait()
                    yield
                except BaseException as error:  # noqa: BLE001 - raised below: a task group would cut the workers off
                    left_by = error
                finally:
                    for worker in workers:
                        worker.stop()
        except BaseExceptionGroup as group:
            first = _first(group)
            for other in _all(group):
                if other is not first:
                    self._log.error("consumer failed too", error=describe(other), exc_info=error_info(other))
            raise first from (left_by if isinstance(left_by, Exception) else None)
        finally:
            self._workers = [worker for worker in self._workers if worker not in workers]
        if left_by is not None:
            raise left_by

    def oldest_running(self) -> Seconds | None:
        """Return for how long the handler that began first has been running; None when none runs."""
        ages = [age for worker in self._workers if (age := worker.oldest_running()) is not None]
        return max(ages, default=None)

    @overload
    def consume(
        self, first: type[DataT], /, *others: type[DataT], group: str, start_from: str = "first"
    ) -> AsyncIterator[Event[DataT]]: ...
    @overload
    def consume(
        self, first: str | type[EventData], /, *others: str | type[EventData], group: str, start_from: str = "first"
    ) -> AsyncIterator[Event[Any]]: ...
    def consume(self, *types: Any, group: str, start_from: str = "first") -> AsyncIterator[Event[Any]]:
        """Iterate over events of a group, one at a time. An event is acked when the loop comes back for more.

        Leaving the loop hands the event in hand back to the group. `types` are names, globs or classes.
        """
        from hyperbus.runtime.iteration import consume_events

        return consume_events(self._open_services, types, group=group, start_from=start_from)

    @overload
    def read(self, first: type[DataT], /, *others: type[DataT], after: str | None = None) -> Reading[DataT]: ...
    @overload
    def read(
        self, first: str | type[EventData], /, *others: str | type[EventData], after: str | None = None
    ) -> Reading[Any]: ...
    def read(self, *types: Any, after: str | None = None) -> Reading[Any]:
        """Iterate over history, and then over what comes, without a group and without acks.

            events = bus.read("workflow.*", after=saved)
            async for event in events:
                saved = events.entry_id  # where to go on another time

        Args:
            types: names, globs or classes.
            after: an entry id to begin after, or "now" for what comes from now on, in streams that are born later too;
                by default from the first entry. Within a stream events are in order; across streams they are as they
                arrive, so that who reads several begins a little before the id, and skips the events that it had.
        """
        from hyperbus.runtime.iteration import read_events

        return read_events(self._open_services, types, after=after)

    # -- inside

    def _new_publisher(self, transport: Transport) -> Publisher:
        chosen = {codec.name: codec for codec in codecs()}
        if self._settings.codec not in chosen:
            raise InvalidSettingError(f"codec={self._settings.codec!r} has to be one of {', '.join(chosen)}")
        return Publisher(
            transport,
            self._announcer,
            self._clock,
            codec=chosen[self._settings.codec],
            prefix=self._prefix,
            limits=PublishLimits.of(self._settings),
        )

    async def _open_transport(self) -> Transport:
        transport = self._transport or self._connect(self._url or self._default_url())
        try:
            await transport.open()
        except BaseException as error:
            await transport.close()
            unreachable = isinstance(error, BusUnavailable) and not isinstance(error, AuthenticationError)
            if self._fallback is None or not unreachable:
                raise
            self._log.warning("the server cannot be reached: going on in memory, nothing is kept", error=str(error))
            transport = self._connect("memory://")
            await transport.open()
        return transport

    def _connect(self, url: str) -> Transport:
        settings = self._settings
        limits = {"connect_timeout": settings.connect_timeout, "command_timeout": settings.command_timeout}
        try:
            return connect(url, prefix=self._prefix, **limits)
        except InvalidSettingError as error:
            if url != settings.url:
                raise
            raise InvalidSettingError(f"{error} (it is set by --url, HYPERBUS_URL or [tool.hyperbus])") from None

    def _default_url(self) -> str:
        folder = Path(DEFAULT_URL.removeprefix("embedded://")).absolute()
        self._log.warning("no url given: using an embedded server; set HYPERBUS_URL to choose", folder=str(folder))
        return DEFAULT_URL

    async def _open_services(self) -> Services:
        """Return what workers share; opened at the first use, closed with the bus."""
        if self._home is not None:
            self._home.check()
        async with self._services_lock:
            if self._services is None:
                from hyperbus.runtime.services import open_services

                self._services = await open_services(
                    self._stack,
                    self.transport,
                    self._announcer,
                    self._clock,
                    settings=self._settings,
                    prefix=self._prefix,
                    publish=self.publish,
                )
        return self._services


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that says most: hyperbus's own before others, the first before later ones."""
    errors = _all(group)
    ours = [error for error in errors if isinstance(error, HyperbusError)]
    return (ours or errors)[0]


def _all(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the errors of a group, and of groups in it."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _all(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
