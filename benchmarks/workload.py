"""What is published and consumed: typed events of about 240 bytes, as they go over the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry

import hyperbus.runtime.worker  # noqa: F401 - loaded before anything is measured, and before garbage is looked for
from benchmarks.bare import Bare, append, pack
from benchmarks.question import Place
from hyperbus import Bus, Event, EventData
from hyperbus.observability.metrics import BusMetrics
from hyperbus.settings import Settings
from hyperbus.signals import Acknowledged, Listener, Signal
from hyperbus.supervisor.worker_process.garbage_collector import calm_collector

#: Events in a batch.
BATCH = 500
#: Events that are consumed before the clock starts, and again after it stopped: in between nothing starts or ends.
MARGIN = 2_000


class Benched(EventData, type="bench.event"):
    """About as much as an event of the demo holds."""

    contract: str
    network: str
    step: int
    note: str


STREAM = "events:bench.event"


def data(step: int = 0) -> Benched:
    """Return what an event says."""
    return Benched(contract="ERC20", network="testnet", step=step, note="x" * 40)


def event(step: int = 0) -> Event[Benched]:
    """Return an event, with the envelope that most have."""
    return Event(data=data(step), workflow_id=f"wf-{step:06}", source_agent="bench")


def open_bus(place: Place, *listeners: Listener, metrics: bool = False) -> Bus:
    """Return a bus on the server, with the metrics that a worker process keeps if asked for."""
    kept = (BusMetrics(CollectorRegistry()),) if metrics else ()
    return Bus(place.url, source_agent="bench", listeners=(*listeners, *kept), settings=Settings())


async def encoded(place: Place, events: Sequence[Event[Any]]) -> list[bytes]:
    """Return the bytes that publishing writes; leaves their streams empty."""
    async with open_bus(place) as bus:
        await bus.publish_many(events)
    with Bare(place.host, place.port) as bare:
        bodies = {}
        for stream in dict.fromkeys(f"events:{event.type}" for event in events):
            (entries,) = bare.ask(pack("XRANGE", stream, "-", "+"))
            bodies[stream] = iter([fields[1] for _, fields in entries])
            bare.ask(pack("DEL", stream))
        return [next(bodies[f"events:{event.type}"]) for event in events]


async def fill(place: Place, count: int, events: Sequence[Event[Any]] | None = None) -> None:
    """Append `count` entries, made of `events` in turns."""
    events = events or [event()]
    bodies = await encoded(place, events)
    commands = [pack("XADD", f"events:{one.type}", "*", "data", body) for one, body in zip(events, bodies, strict=True)]
    with Bare(place.host, place.port) as bare:
        append(bare, commands, count)


class Acks:
    """A listener: measures the rate of acks between two of them. The server took each."""

    def __init__(self, after: int, count: int, total: int) -> None:
        self._after = after
        self._until = after + count
        self._total = total
        self._acked = 0
        self._began: tuple[float, int] | None = None
        self._ended: tuple[float, int] | None = None
        self.done = asyncio.Event()

    def __call__(self, signal: Signal) -> None:
        """Count the entries of an ack."""
        if not isinstance(signal, Acknowledged):
            return
        self._acked += signal.count
        if self._began is None and self._acked >= self._after:
            self._began = time.perf_counter(), self._acked
        elif self._ended is None and self._acked >= self._until:
            self._ended = time.perf_counter(), self._acked
        if self._acked >= self._total:
            self.done.set()

    @property
    def rate(self) -> float:
        """Acks a second."""
        assert self._began is not None
        assert self._ended is not None
        return (self._ended[1] - self._began[1]) / (self._ended[0] - self._began[0])


async def consume_rate(
    place: Place,
    *consumers: object,
    count: int,
    groups: Sequence[str] = ("bench",),
    events: Sequence[Event[Any]] | None = None,
    metrics: bool = True,
) -> float:
    """Return how many entries a second are read, handled and acked, by all the groups together.

    The backlog is there before: the rate is that of a worker which has always something to do.
    """
    events = events or [event()]
    each = -(-(count + 2 * MARGIN) // len(groups))
    await fill(place, each, events)
    acks = Acks(MARGIN, count, each * len(groups))
    async with open_bus(place, acks, metrics=metrics) as bus:
        calm_collector()
        async with bus.running(*consumers):
            await acks.done.wait()
    with Bare(place.host, place.port) as bare:
        for group in groups:
            for stream in {f"events:{one.type}" for one in events}:
                (pending,) = bare.ask(pack("XPENDING", stream, group))
                assert pending[0] == 0, f"{pending[0]} entries of {stream} were not acked"
    return acks.rate
