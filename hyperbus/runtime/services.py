"""What every worker of a process shares. The bus opens it at the first use, and owns it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, suppress
from typing import Protocol

from hyperbus.background import BackgroundTasks
from hyperbus.clock import Clock, Seconds
from hyperbus.declaration.delivery import PublishEvent
from hyperbus.errors import HyperbusError
from hyperbus.event.codec import Codec, codecs
from hyperbus.event.data import EventData, event_types
from hyperbus.event.routing import TypeFilter, stream_key
from hyperbus.logger import get_logger
from hyperbus.runtime.coordination.heartbeat import Heartbeat
from hyperbus.runtime.coordination.notifier import Notifier
from hyperbus.runtime.coordination.stream_finder import StreamFinder
from hyperbus.runtime.poison.isolation import Isolation
from hyperbus.runtime.reading.cursor_reader import Cursor
from hyperbus.runtime.retention.retention_loop import RetentionLoop
from hyperbus.settings import Settings
from hyperbus.signals import Announcer, StreamsAwaited, StreamsFound
from hyperbus.transport import FIRST_ID, Transport, record_names


class Stoppable(Protocol):
    """A worker, as far as who ends the process needs it."""

    def stop(self, *, drain_timeout: Seconds | None = None) -> None:
        """Let it drain and end."""
        ...


class Services:
    """What every worker of a process shares."""

    def __init__(
        self,
        transport: Transport,
        announcer: Announcer,
        clock: Clock,
        *,
        settings: Settings,
        prefix: str,
        publish: PublishEvent,
    ) -> None:
        self.transport = transport
        self.announcer = announcer
        self.clock = clock
        self.prefix = prefix
        self.publish = publish
        self.prefetch = settings.prefetch
        self.prefetch_bytes = settings.prefetch_bytes
        self.heartbeat_ttl: Seconds = settings.heartbeat_ttl
        self.drain_timeout: Seconds = settings.drain_timeout
        self.codecs: Sequence[Codec] = codecs()
        self.data_types: Mapping[str, type[EventData]] = event_types()
        self.heartbeat = Heartbeat(transport, announcer, clock, settings.heartbeat_ttl)
        self.finder = StreamFinder(
            transport, clock, prefix=prefix, scan_interval=settings.scan_interval, announcer=announcer
        )
        self.notifier = Notifier(transport, clock, prefix=prefix, announcer=announcer)
        self.notifier.subscribe(record_names.STREAM_BORN, self.finder.look_soon)
        self.notifier.subscribe(record_names.STREAM_ENDED, self.finder.let_go)
        self.retention = RetentionLoop(transport, announcer, clock, settings, prefix=prefix, types=self.data_types)
        self.isolation = Isolation(clock)
        #: Workers behind loops of `consume`, and their tasks; ended with the bus when a loop is left open.
        self.loops: dict[Stoppable, asyncio.Task[None]] = {}
        #: What loops of `read` read with; stopped when the bus closes, so that they end.
        self.cursors: set[Cursor] = set()

    def named_streams(self, types: TypeFilter) -> dict[str, str]:
        """Return the streams, with their types, that are known by name, before they exist."""
        return {stream_key(self.prefix, name): name for name in types.names}


async def open_services(
    stack: AsyncExitStack,
    transport: Transport,
    announcer: Announcer,
    clock: Clock,
    *,
    settings: Settings,
    prefix: str,
    publish: PublishEvent,
) -> Services:
    """Start what workers share; `stack` ends it.

    Raises:
        BusUnavailable: the server cannot be reached.
    """
    await _warn_of_eviction(transport)
    services = Services(transport, announcer, clock, settings=settings, prefix=prefix, publish=publish)
    await services.notifier.start()
    stack.push_async_callback(services.heartbeat.stop)
    background = BackgroundTasks(announcer=announcer, clock=clock)
    stack.push_async_callback(background.stop)
    background.start(services.finder.run, "stream finder")
    background.start(services.notifier.run, "notifier")
    background.start(services.retention.run, "retention")
    stack.push_async_callback(_end_loops, services.loops)
    stack.push_async_callback(_end_reads, services.cursors)
    return services


async def tell_of_streams(services: Services, group: str, types: TypeFilter, streams: Mapping[str, str]) -> None:
    """Tell which streams (key and type) a worker reads from now on: those that are there, and those that it waits for.

    A glob finds only what is there, or is just being born; what is named may have no stream yet, or never get one.
    """
    named = [name for name, event_type in streams.items() if event_type in types.names]
    with suppress(HyperbusError):  # a key that is no stream, or a server that is away: the first read deals with it
        last_ids = await services.transport.streams.last_ids(named)
        named = [name for name, last in zip(named, last_ids, strict=True) if last == FIRST_ID]
        found = tuple(name for name in streams if name not in named)
        if found:
            services.announcer.announce(StreamsFound(group, found))
        if named:
            services.announcer.announce(StreamsAwaited(group, tuple(named)))


async def _warn_of_eviction(transport: Transport) -> None:
    """Warn of a server that throws keys away when it is full: it would be streams, groups and heartbeats."""
    told = await transport.streams.eviction_policy()
    if told is not None and told[0] != "noeviction" and told[1]:
        get_logger("hyperbus").warning(
            "the server evicts keys when it is full, and events with them: set maxmemory-policy noeviction",
            policy=told[0],
            maxmemory=told[1],
        )


async def _end_loops(loops: Mapping[Stoppable, asyncio.Task[None]]) -> None:
    for worker in loops:
        worker.stop(drain_timeout=0)
    if loops:
        await asyncio.wait(tuple(loops.values()))


async def _end_reads(cursors: AbstractSet[Cursor]) -> None:
    for cursor in tuple(cursors):
        await cursor.stop()
