"""What every worker of a process shares. The bus makes it at the first use, and owns it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Protocol

from hyperbus.clock import Clock, Seconds
from hyperbus.declaration.delivery import PublishEvent
from hyperbus.event.codec import Codec, codecs
from hyperbus.event.data import EventData, event_types
from hyperbus.logger import get_logger
from hyperbus.publisher import STREAM_DIRECTORY
from hyperbus.runtime.coordination.heartbeat import Heartbeat
from hyperbus.runtime.coordination.notifier import STREAM_BORN, Notifier
from hyperbus.runtime.coordination.stream_finder import StreamFinder
from hyperbus.runtime.poison.isolation import Solitude
from hyperbus.runtime.retention.retention_loop import Retention
from hyperbus.settings import Settings
from hyperbus.signals import Announcer
from hyperbus.transport import Transport


class Stoppable(Protocol):
    """A worker, as far as who ends the process needs it."""

    def stop(self, *, drain_timeout: Seconds | None = None) -> None:
        """Let it drain and end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every worker of a process shares."""

    transport: Transport
    heartbeat: Heartbeat
    finder: StreamFinder
    notices: Notifier
    solitude: Solitude
    announcer: Announcer
    clock: Clock
    codecs: Sequence[Codec]
    data_types: Mapping[str, type[EventData]]
    publish: PublishEvent
    prefix: str
    prefetch: int
    prefetch_bytes: int
    heartbeat_ttl: Seconds
    drain_timeout: Seconds
    #: Workers behind loops of `consume`, and their tasks; ended with the bus when a loop is left open.
    loops: dict[Stoppable, asyncio.Task[None]] = field(default_factory=dict)
    #: Set when the bus closes: loops of `read` end.
    closing: asyncio.Event = field(default_factory=asyncio.Event)


async def open_surroundings(
    stack: AsyncExitStack,
    transport: Transport,
    announcer: Announcer,
    clock: Clock,
    *,
    settings: Settings,
    prefix: str,
    publish: PublishEvent,
) -> Surroundings:
    """Start what workers share; `stack` ends it.

    Raises:
        BusUnavailable: the server cannot be reached.
    """
    await _warn_of_eviction(transport)
    heartbeat = Heartbeat(transport.records, transport.separate, settings.heartbeat_ttl)
    finder = StreamFinder(
        transport, clock, prefix=prefix, directory=STREAM_DIRECTORY, scan_interval=settings.scan_interval
    )
    notices = Notifier(transport, clock, prefix=prefix)
    await notices.start()
    notices.hear(STREAM_BORN, finder.look_soon)
    stack.push_async_callback(heartbeat.stop)
    retention = Retention(transport, announcer, clock, settings, prefix=prefix, types=event_types())
    for part, name in (
        (finder.run(), "stream finder"),
        (notices.run(), "notices"),
        (retention.run(), "retention"),
    ):
        stack.push_async_callback(_end, asyncio.create_task(part, name=f"hyperbus {name}"))
    around = Surroundings(
        transport=transport,
        heartbeat=heartbeat,
        finder=finder,
        notices=notices,
        solitude=Solitude(clock),
        announcer=announcer,
        clock=clock,
        codecs=codecs(),
        data_types=event_types(),
        publish=publish,
        prefix=prefix,
        prefetch=settings.prefetch,
        prefetch_bytes=settings.prefetch_bytes,
        heartbeat_ttl=settings.heartbeat_ttl,
        drain_timeout=settings.drain_timeout,
    )
    stack.push_async_callback(_end_loops, around.loops)
    stack.callback(around.closing.set)
    return around


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


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
