"""Tells everyone that this process's workers live, and keeps what they hold, from a thread of its own.

A handler that blocks the event loop, or runs for hours, does not make its worker look dead.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import HyperbusError
from hyperbus.logger import get_logger
from hyperbus.signals import Announcer, ConnectionChanged
from hyperbus.transport import Records, Transport, record_names

#: Heartbeats in the time that a worker counts as alive.
BEATS = 4
#: The part of that time that may lie between two beats that get through. After more, others may not have had their
#: chance either to say that they live.
_GAP = 2 / 3
#: What is to be done at each beat, on the thread's own connection and event loop.
Subscriber = Callable[[Transport], Awaitable[None]]


class Heartbeat:
    """Keeps a record alive for each worker of this process.

    A record is renewed, which a full server still allows, and stored again when it has gone. The thread has its
    own event loop and its own connection, and ends with the bus: whatever fails in it, it begins anew. When no beat has
    got through for as long as a worker counts as alive, that is announced, as others take its workers for dead then.
    """

    def __init__(self, transport: Transport, announcer: Announcer, clock: Clock, ttl: Seconds) -> None:
        self._records = transport.records
        self._transport = transport
        self._announcer = announcer
        self._monotonic = clock.monotonic
        self._ttl = ttl
        self._names: dict[str, bytes] = {}
        self._subscribers: list[Subscriber] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        #: When the last beat got through, and since when each came in time after the one before.
        self._last = self._steady_since = float("-inf")
        self._lost = False
        self._logged = ""
        self._log = get_logger("hyperbus.heartbeat")

    async def add(self, consumer: str, about: bytes) -> None:
        """Let a worker count as alive from now on; `about` says who it is, for people.

        Raises:
            BusUnavailable, ServerError: the server cannot be reached, or refuses.
        """
        # not with `put`, which a full server refuses
        await self._records.compare_and_set(record_names.heartbeat(consumer), None, about, ttl=self._ttl)
        with self._lock:
            self._names[consumer] = about
        if self._thread is None:
            self._got_through()
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name="hyperbus heartbeat", daemon=True)
            self._thread.start()

    async def remove(self, consumer: str) -> None:
        """Let a worker count as gone at once."""
        with self._lock:
            self._names.pop(consumer, None)
        with suppress(HyperbusError):  # failing leaves it to end by itself
            await self._records.delete([record_names.heartbeat(consumer)])

    def steady_since(self) -> float:
        """Return since when beats have got through, each in time, on the monotonic clock: now, if the last is late.

        Who could not say itself that it lives knows that others may not have been able to.
        """
        with self._lock:
            now = self._monotonic()
            return now if now - self._last > self._ttl * _GAP else self._steady_since

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call `subscriber` at each beat from now on, in the thread."""
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

    # -- in the thread

    def _run(self) -> None:
        """Beat until stopped, whatever fails: a thread that ended would make workers look dead that live."""
        while not self._stopping.is_set():
            try:
                asyncio.run(self._beat())
            except BaseException as error:  # noqa: BLE001
                self._failed(error)
                if repr(error) != self._logged:
                    self._logged = repr(error)
                    self._log.error("the heartbeat failed and begins anew", error=repr(error))
                self._stopping.wait(self._ttl / BEATS)

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
                except HyperbusError as error:
                    self._failed(error)
                    continue  # the next beat tries again
                self._got_through()
                for subscriber in subscribers:
                    with suppress(HyperbusError):
                        await subscriber(transport)
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

    def _got_through(self) -> None:
        with self._lock:
            now = self._monotonic()
            if now - self._last > self._ttl * _GAP:
                self._steady_since = now
            self._last = now
        self._tell(lost=False)

    def _failed(self, error: BaseException) -> None:
        if self._monotonic() - self._last > self._ttl:
            self._tell(lost=True, error=str(error) or repr(error))

    def _tell(self, *, lost: bool, error: str = "") -> None:
        """Announce, in the bus's own thread, that beats get through no longer, or again."""
        if lost == self._lost or self._loop is None:
            return
        self._lost = lost
        changed = ConnectionChanged("heartbeat", connected=not lost, error=error, kind="heartbeat")
        with suppress(RuntimeError):  # the loop has ended, and everything with it
            self._loop.call_soon_threadsafe(self._announcer.announce, changed)
