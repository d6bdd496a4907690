"""Tells everyone that this process's workers live, and keeps what they hold, from a thread of its own.

A handler that blocks the event loop, or runs for hours, does not make its worker look dead.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

from hyperbus.clock import Seconds
from hyperbus.errors import HyperbusError
from hyperbus.transport import Records, Transport, record_names

#: Heartbeats in the time that a worker counts as alive.
BEATS = 4
#: What is to be done at each beat, on the thread's own connection and event loop.
Subscriber = Callable[[Transport], Awaitable[None]]


class Heartbeat:
    """Keeps a record alive for each worker of this process.

    A record is renewed, which a full server still allows, and stored again when it has gone. The thread has its
    own event loop and its own connection, and ends with the bus.
    """

    def __init__(self, transport: Transport, ttl: Seconds) -> None:
        self._records = transport.records
        self._transport = transport
        self._ttl = ttl
        self._names: dict[str, bytes] = {}
        self._subscribers: list[Subscriber] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    async def add(self, consumer: str, about: bytes) -> None:
        """Let a worker count as alive from now on; `about` says who it is, for people.

        Raises:
            BusUnavailable: the server cannot be reached.
        """
        # not with `put`, which a full server refuses
        await self._records.compare_and_set(record_names.heartbeat(consumer), None, about, ttl=self._ttl)
        with self._lock:
            self._names[consumer] = about
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hyperbus heartbeat", daemon=True)
            self._thread.start()

    async def remove(self, consumer: str) -> None:
        """Let a worker count as gone at once."""
        with self._lock:
            self._names.pop(consumer, None)
        with suppress(HyperbusError):  # failing leaves it to end by itself
            await self._records.delete([record_names.heartbeat(consumer)])

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call `subscriber` at each beat from now on, in the thread; it may raise nothing but HyperbusError."""
        with self._lock:
            self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Call it no more; a call that has begun goes on."""
        with self._lock:
            self._subscribers.remove(subscriber)

    async def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def _run(self) -> None:
        asyncio.run(self._beat())

    async def _beat(self) -> None:
        transport = self._transport.separate()
        pause = self._ttl / BEATS
        opened = False
        try:
            while not await asyncio.to_thread(self._stopping.wait, pause):
                with self._lock:
                    names, subscribers = dict(self._names), list(self._subscribers)
                try:
                    if not opened:
                        await transport.open()
                        opened = True
                    await self._renew(transport.records, names)
                    for subscriber in subscribers:
                        await subscriber(transport)
                except HyperbusError:
                    continue  # the workers notice an outage themselves; the next beat tries again
        finally:
            await transport.close()

    async def _renew(self, records: Records, names: dict[str, bytes]) -> None:
        if not names:
            return
        alive = await records.renew([record_names.heartbeat(name) for name in names], ttl=self._ttl)
        for (name, about), is_alive in zip(names.items(), alive, strict=True):
            if is_alive:
                continue
            with self._lock:
                removed = name not in self._names
            if not removed:
                await records.compare_and_set(record_names.heartbeat(name), None, about, ttl=self._ttl)
