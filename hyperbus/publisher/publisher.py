"""The publisher: one event at a time from many tasks, and many at a time from one.

Nothing is sent twice, unless the caller said `once=True`: then a repeat adds nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import BusUnavailable, DurabilityUnsupported, PublishFailed
from hyperbus.event.codec import Codec
from hyperbus.event.data import type_of
from hyperbus.event.envelope import Event, Publishable
from hyperbus.publisher.appender import PLAIN, Appender, Mode, Outcome, are_stored
from hyperbus.publisher.buffer_limit import Room
from hyperbus.publisher.bulk import Chunk, ChunkSender
from hyperbus.publisher.durability import read_durability
from hyperbus.publisher.encoder import Encoder
from hyperbus.publisher.send_queue import BATCH, DURABLE_BATCH, Lane
from hyperbus.signals import Announcer
from hyperbus.transport import NewEntry, Transport

#: Events of a `publish_many` that are under way together, at most, where the server answers at once.
MANY = 2_000


class Publisher:
    """Turns events into entries.

    1. Encodes an event and refuses one that is too large, before anything is sent.
    2. Holds a bounded number of events that wait; the next publisher waits for room.
    3. Sends what has gathered, each mode in a lane of its own: one round trip at a time, so that order is kept.
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
        max_event_bytes: int,
        timeout: Seconds,
        buffer: int,
        buffer_bytes: int,
        once_window: Seconds,
        durability_timeout: Seconds,
    ) -> None:
        self._clock = clock
        self._encoder = Encoder(codec, prefix=prefix, max_bytes=max_event_bytes)
        self._timeout = timeout
        self._durability_timeout = durability_timeout
        self._appender = Appender(transport, announcer, clock, prefix=prefix, once_window=once_window)
        self._room = Room(clock, buffer, buffer_bytes)
        self._lanes: dict[Mode, tuple[Lane, asyncio.Task[None]]] = {}
        self._plain: Lane | None = None

    async def start(self) -> None:
        """Begin to send."""
        self._plain = self._lane(PLAIN)

    async def stop(self) -> None:
        """Send what has gathered (until its deadlines), then stop."""
        self._plain = None
        await self._room.close()
        ends = []
        for lane, task in self._lanes.values():
            lane.close()
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
        lane = self._plain
        if lane is None:
            raise _closed()
        allowed = self._timeout if timeout is None else timeout
        mode = self._mode(once, durability, allowed) if once or durability is not None else PLAIN
        deadline = self._clock.monotonic() + allowed
        if not self._room.enter(len(entry.body)):
            return self._publish_later(entry, event.id, deadline, mode)
        if mode is not PLAIN:
            lane = self._lane(mode)
        return lane.put(entry, event.id, deadline)

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
        sender = ChunkSender(self._appender, self._clock, mode)
        events = list(events)  # the caller may change its own while these are under way
        types = [what.type if isinstance(what, Event) else type_of(what) for what in events]
        results: list[Outcome] = []
        for start in range(0, len(events), most):
            end = start + most
            chunk = Chunk(events[start:end], types[start:end], self._encoder, own_agent)
            results += await sender.append(chunk, deadline)
        return _all_stored(results)

    def _mode(self, once: bool, durability: str | None, allowed: Seconds) -> Mode:
        if durability is None:
            return Mode(once) if once else PLAIN
        return Mode(once, read_durability(durability, min(self._durability_timeout, max(0.001, allowed))))

    def _lane(self, mode: Mode) -> Lane:
        """Return the lane of a mode; one for durability ends when it is empty, so that there are never many."""
        known = self._lanes.get(mode)
        if known is not None and not known[0].ended:
            return known[0]
        lane = Lane(mode, self._appender, self._clock, self._room)
        task = asyncio.create_task(lane.run(), name="hyperbus publisher")
        self._lanes[mode] = lane, task
        task.add_done_callback(lambda _: self._forget(mode, lane))
        return lane

    def _forget(self, mode: Mode, lane: Lane) -> None:
        if lane.ended and self._lanes.get(mode, (None,))[0] is lane:
            del self._lanes[mode]

    async def _publish_later(self, entry: NewEntry, event_id: str, deadline: float, mode: Mode) -> str:
        try:
            entered = await self._room.wait(len(entry.body), deadline)
        except TimeoutError:
            raise self._appender.unavailable("no room in the publish buffer") from None
        if not entered or self._plain is None:
            raise BusUnavailable("the bus was closed before the event was sent")
        return await self._lane(mode).put(entry, event_id, deadline)


def _closed() -> BusUnavailable:
    return BusUnavailable("the bus is closed; publish inside `async with Bus(...)`")


def _all_stored(results: list[Outcome]) -> list[str]:
    if are_stored(results):
        return results
    if all(isinstance(result, BusUnavailable) for result in results):
        raise BusUnavailable(f"none of {len(results)} events was sent: {results[0]}")
    if isinstance(results[0], DurabilityUnsupported) and all(isinstance(r, DurabilityUnsupported) for r in results):
        raise results[0]
    raise PublishFailed(results)
