"""The publisher: one event at a time from many tasks, and many at a time from one.

Nothing is sent twice, unless the caller said `once=True`: then a repeat adds nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from hyperbus.background import keep_running
from hyperbus.clock import Clock, Seconds
from hyperbus.errors import BusUnavailable, DurabilityUnsupported, PublishFailed
from hyperbus.event.codec import Codec
from hyperbus.event.data import type_of
from hyperbus.event.envelope import Event, Publishable
from hyperbus.publisher.appender import PLAIN, Appender, Mode, are_stored
from hyperbus.publisher.buffer_limit import BufferLimit
from hyperbus.publisher.bulk import Bulk, BulkSender
from hyperbus.publisher.durability import read_durability
from hyperbus.publisher.encoder import Encoder
from hyperbus.publisher.limits import PublishLimits
from hyperbus.publisher.send_queue import BATCH, DURABLE_BATCH, SendQueue
from hyperbus.signals import Announcer
from hyperbus.transport import NewEntry, Transport
from hyperbus.transport.appends import AppendResult

#: Events of a `publish_many` that are under way together, at most, where the server answers at once.
MANY = 2_000


class Publisher:
    """Turns events into entries.

    1. Encodes an event and refuses one that is too large, before anything is sent.
    2. Holds a bounded number of events that wait; the next publisher waits for its place.
    3. Sends what has gathered, each mode in a queue of its own: one round trip at a time, so that order is kept.
    4. Tells each caller its entry id, or what went wrong, by its deadline.
    """

    def __init__(
        self,
        transport: Transport,
        announcer: Announcer,
        clock: Clock,
        *,
        codec: Codec,
        prefix: str,
        limits: PublishLimits,
    ) -> None:
        self._clock = clock
        self._encoder = Encoder(codec, prefix=prefix, max_bytes=limits.max_event_bytes, check=limits.check_events)
        self._timeout = limits.timeout
        self._durability_timeout = limits.durability_timeout
        self._appender = Appender(transport, announcer, clock, prefix=prefix, once_window=limits.once_window)
        self._limit = BufferLimit(clock, limits.buffer, limits.buffer_bytes)
        self._queues: dict[Mode, tuple[SendQueue, asyncio.Task[None]]] = {}
        self._plain: SendQueue | None = None

    async def start(self) -> None:
        """Begin to send."""
        self._plain = self._queue(PLAIN)

    async def stop(self) -> None:
        """Send what has gathered (until its deadlines), then stop."""
        self._plain = None
        self._limit.close()
        ends = []
        for queue, task in self._queues.values():
            queue.close()
            ends.append(task)
        for error in await asyncio.gather(*ends, return_exceptions=True):
            if error is not None:
                raise error

    def publish(
        self,
        event: Event[Any],
        *,
        timeout: Seconds | None = None,
        once: bool = False,
        durability: str | None = None,
    ) -> Awaitable[str]:
        """Append one event; return where its entry id will be. See `Bus.publish`."""
        entry = self._encoder.encode(event)
        queue = self._plain
        if queue is None:
            raise _closed()
        allowed = self._timeout if timeout is None else timeout
        mode = self._mode(once, durability, allowed) if once or durability is not None else PLAIN
        deadline = self._clock.monotonic() + allowed
        if not self._limit.try_acquire(len(entry.body)):
            return self._publish_later(entry, event.id, deadline, mode)
        if mode is not PLAIN:
            queue = self._queue(mode)
        return queue.put(entry, event.id, deadline)

    async def publish_many(
        self,
        events: Sequence[Publishable],
        own_agent: str | None = None,
        *,
        timeout: Seconds | None = None,  # noqa: ASYNC109 - one deadline for many round trips
        once: bool = False,
        durability: str | None = None,
    ) -> list[str]:
        """Append many events; return their entry ids, in order. See `Bus.publish_many`.

        `own_agent` is the `source_agent` of those that have none.
        """
        if self._plain is None:
            raise _closed()
        allowed = self._timeout if timeout is None else timeout
        deadline = self._clock.monotonic() + allowed
        mode = self._mode(once, durability, allowed)
        most = DURABLE_BATCH if mode.durability is not None else BATCH if once else MANY
        sender = BulkSender(self._appender, self._clock, mode)
        events = list(events)  # the caller may change its own while these are under way
        types = [what.type if isinstance(what, Event) else type_of(what) for what in events]
        results: list[AppendResult] = []
        for start in range(0, len(events), most):
            end = start + most
            bulk = Bulk(events[start:end], types[start:end], self._encoder, own_agent)
            results += await sender.append(bulk, deadline)
        return _all_stored(results)

    def _mode(self, once: bool, durability: str | None, allowed: Seconds) -> Mode:
        if durability is None:
            return Mode(once) if once else PLAIN
        return Mode(once, read_durability(durability, min(self._durability_timeout, max(0.001, allowed))))

    def _queue(self, mode: Mode) -> SendQueue:
        """Return the queue of a mode; one for durability ends when it is empty, so that there are never many."""
        known = self._queues.get(mode)
        if known is not None and not known[0].ended:
            return known[0]
        queue = SendQueue(mode, self._appender, self._clock, self._limit)
        task = asyncio.create_task(keep_running(queue.run, "publisher"), name="hyperbus publisher")
        self._queues[mode] = queue, task
        task.add_done_callback(lambda _: self._forget(mode, queue))
        return queue

    def _forget(self, mode: Mode, queue: SendQueue) -> None:
        if queue.ended and self._queues.get(mode, (None,))[0] is queue:
            del self._queues[mode]

    async def _publish_later(self, entry: NewEntry, event_id: str, deadline: float, mode: Mode) -> str:
        try:
            acquired = await self._limit.acquire(len(entry.body), deadline)
        except TimeoutError:
            raise self._appender.unavailable("no room in the publish buffer") from None
        if not acquired or self._plain is None:
            raise BusUnavailable("the bus was closed before the event was sent")
        return await self._queue(mode).put(entry, event_id, deadline)


def _closed() -> BusUnavailable:
    return BusUnavailable("the bus is closed; publish inside `async with Bus(...)`")


def _all_stored(results: list[AppendResult]) -> list[str]:
    if are_stored(results):
        return results
    if all(isinstance(result, BusUnavailable) for result in results):
        raise BusUnavailable(f"none of {len(results)} events was sent: {results[0]}")
    if isinstance(results[0], DurabilityUnsupported) and all(isinstance(r, DurabilityUnsupported) for r in results):
        raise results[0]
    raise PublishFailed(results)
