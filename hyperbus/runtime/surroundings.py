"""What every worker of a process shares. The bus makes it at the first use, and owns it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hyperbus.clock import Clock, Seconds
from hyperbus.declaration.delivery import PublishEvent
from hyperbus.event.codec import Codec
from hyperbus.event.data import EventData
from hyperbus.runtime.heartbeat import Heartbeat
from hyperbus.runtime.notices import Notices
from hyperbus.runtime.solitude import Solitude
from hyperbus.runtime.stream_finder import StreamFinder
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
    notices: Notices
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
