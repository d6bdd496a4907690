"""Reads that wait, in memory. A blocked read is woken by any change of its keys, by `wake` and by `close`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable
from hyperbus.transport import Entry, Page, Read
from hyperbus.transports.memory.session import Session
from hyperbus.transports.memory.store import Store, Waiter
from hyperbus.transports.memory.stream import parse_id


class MemoryReader:
    """Implements `hyperbus.transport.Reader`."""

    def __init__(self, store: Store, session: Session, forget: Callable[[MemoryReader], None]) -> None:
        self._store = store
        self._session = session
        self._forget = forget
        self._waiter: Waiter | None = None
        self._woken = False
        self._closed = False

    async def read_group(
        self, group: str, consumer: str, streams: Sequence[str], *, count: int, block: Seconds
    ) -> Read:
        """Deliver new entries to `consumer`, at most `count` a stream."""
        store = self._store

        def deliver() -> Read:
            # All groups are looked up before anything is delivered: one that is missing fails the whole call.
            found = [(name, *store.group(name, group)) for name in streams]
            now = store.clock.monotonic()
            result: Read = []
            for name, stream, members in found:
                members.consumers.add(consumer)
                entries = stream.deliver(members, consumer, count, now)
                if entries:
                    result.append((name, Page(entries)))
            return result

        return await self._attempt(streams, deliver, block)

    async def read_pending(self, group: str, consumer: str, stream: str, *, after: bytes, count: int) -> list[Entry]:
        """Return what `consumer` holds pending with an id above `after`."""
        await self._enter()
        with self._store.lock:
            found, members = self._store.group(stream, group)
            members.consumers.add(consumer)
            return found.redeliver(members, consumer, parse_id(after), count, self._store.clock.monotonic())

    async def read(self, positions: Mapping[str, bytes], *, count: int, block: Seconds) -> Read:
        """Return entries above a position in each stream."""
        store = self._store
        after = {name: parse_id(position) for name, position in positions.items()}

        def collect() -> Read:
            found = [(name, store.stream(name)) for name in after]
            read = [(name, stream.read(after[name], count)) for name, stream in found if stream is not None]
            return [(name, Page(entries)) for name, entries in read if entries]

        return await self._attempt(list(after), collect, block)

    async def wake(self) -> None:
        """Make the read that is blocked, or else the next one that would block, return now."""
        self._woken = True
        if self._waiter is not None:
            self._waiter.wake()

    async def close(self) -> None:
        """Close the reader; a blocked read raises `BusUnavailable`."""
        self.shut()
        self._forget(self)

    def shut(self) -> None:
        """Refuse further reads, and end the blocked one."""
        self._closed = True
        if self._waiter is not None:
            self._waiter.wake()

    async def _enter(self) -> None:
        await self._session.enter()
        self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise BusUnavailable("this reader is closed: open another with transport.open_reader()")

    async def _attempt(self, keys: Sequence[str], attempt: Callable[[], Read], block: Seconds) -> Read:
        await self._enter()
        if block <= 0:
            with self._store.lock:
                return attempt()
        try:
            return await self._attempt_until(keys, attempt, self._store.clock.monotonic() + block)
        finally:
            self._woken = False

    async def _attempt_until(self, keys: Sequence[str], attempt: Callable[[], Read], deadline: float) -> Read:
        era = self._store.era
        while True:
            with self._store.lock:
                if self._store.era != era:
                    raise BusUnavailable("memory:// has lost its latest entries meanwhile; try again")
                found = attempt()
                remaining = deadline - self._store.clock.monotonic()
                if found or self._woken or remaining <= 0:
                    return found
                # Still under the lock, so that no change falls between the look and the wait.
                self._waiter = self._store.watch(keys)
            await self._wait(keys, self._waiter, remaining)
            self._check_open()

    async def _wait(self, keys: Sequence[str], waiter: Waiter, timeout: Seconds) -> None:  # noqa: ASYNC109 - by our clock
        timer = asyncio.ensure_future(self._store.clock.sleep(timeout))
        try:
            await asyncio.wait({timer, waiter.future}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiter = None
            with self._store.lock:
                self._store.unwatch(keys, waiter)
            timer.cancel()
            await asyncio.wait({timer})
