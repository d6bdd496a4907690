"""Reads that wait, each reader on a connection of its own. The only way to end a wait early is CLIENT UNBLOCK."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, HyperbusError
from hyperbus.transport import Entry, Page, Read
from hyperbus.transports.redis.command_runner import CommandRunner
from hyperbus.transports.redis.connection.reconnecting import ReconnectingConnection
from hyperbus.transports.redis.protocol.commands import GroupRead, milliseconds, pack
from hyperbus.transports.redis.protocol.replies import Refusal, is_wake

#: How often, and how far apart, a wake is sent to a read that is on its way to the server but not there yet.
_WAKES = 20
_WAKE_PAUSE: Seconds = 0.005
#: Bytes that a read of several entries may bring. What it asked for is then pending; whoever reads asks for less.
READ_BYTES = 32 * 1024 * 1024


class RedisReader:
    """Implements `hyperbus.transport.Reader`.

    Args:
        connection: a connection of its own, which knows its client id.
        control: sends wake-ups, over another one.
        forget: called when it is closed.
    """

    def __init__(
        self, connection: ReconnectingConnection, control: CommandRunner, forget: Callable[[RedisReader], None]
    ) -> None:
        self._connection = connection
        self._control = control
        self._forget = forget
        self._woken = False
        self._blocked: object | None = None
        self._prepared: tuple[tuple[str, str, tuple[str, ...]], GroupRead] | None = None
        self._idle: asyncio.Event | None = None
        self._closed = False

    async def read_group(
        self, group: str, consumer: str, streams: Sequence[str], *, count: int, block: Seconds
    ) -> Read:
        """Deliver new entries to `consumer`, at most `count` a stream."""
        if not streams:
            return await self._wait_for_nothing(block)
        key = (group, consumer, tuple(streams))
        # A worker asks for the same streams again and again; only the count and the wait change.
        if self._prepared is None or self._prepared[0] != key:
            self._prepared = (key, GroupRead(*key))
        command = self._prepared[1]
        reply = await self._ask(partial(command.pack, count), block, count * len(streams))
        if not reply:
            return []
        names = command.names
        return [(names[stream], Page(entries)) for stream, entries in reply]

    async def read_pending(self, group: str, consumer: str, stream: str, *, after: bytes, count: int) -> list[Entry]:
        """Return what `consumer` holds pending with an id above `after`."""
        command = ("XREADGROUP", "GROUP", group, consumer, "COUNT", count, "STREAMS", stream, after)
        reply = await self._ask(lambda _: pack(*command), 0, count)
        return [Entry(entry_id, fields or []) for _, entries in reply or () for entry_id, fields in entries]

    async def read(self, positions: Mapping[str, bytes], *, count: int, block: Seconds) -> Read:
        """Return entries above a position in each stream."""
        if not positions:
            return await self._wait_for_nothing(block)

        def command(wait: Seconds) -> bytes:
            blocking = ("BLOCK", milliseconds(wait)) if wait > 0 else ()
            return pack("XREAD", "COUNT", count, *blocking, "STREAMS", *positions, *positions.values())

        reply = await self._ask(command, block, count * len(positions))
        return [(stream.decode(), Page(entries)) for stream, entries in reply or ()]

    async def wake(self) -> None:
        """Make the read that is blocked, or else the next one that would block, return now."""
        self._woken = True
        if self._idle is not None:
            self._idle.set()
        blocked = self._blocked
        for _ in range(_WAKES):
            if blocked is None or self._blocked is not blocked or await self._unblock():
                return
            # The read may be on its way: until the server has it, there is nothing to unblock.
            await asyncio.sleep(_WAKE_PAUSE)

    async def close(self) -> None:
        """Close the connection; a blocked read raises `BusUnavailable`. Twice is safe."""
        self._closed = True
        if self._idle is not None:
            self._idle.set()
        self._forget(self)
        await self._connection.close()

    async def _ask(self, command: Callable[[Seconds], bytes], block: Seconds, count: int) -> Any:
        """Ask for so many entries; return the reply.

        Raises:
            BusUnavailable: the server is away, or the reply was too large for one of several entries, and broken off.
        """
        most_bytes = READ_BYTES if count > 1 else None
        if block <= 0:
            [reply] = await self._connection.call(command(0), same_era=True, most_bytes=most_bytes)
        else:
            [reply] = await self._ask_blocking(command, block, most_bytes)
        if type(reply) is Refusal:
            if is_wake(reply):
                return None
            raise self._connection.error_of(reply)
        return reply

    async def _ask_blocking(
        self, command: Callable[[Seconds], bytes], block: Seconds, most_bytes: int | None
    ) -> list[Any]:
        self._blocked = object()
        try:
            # First connect: a wake that comes before the command is written must be seen when it is written.
            live = await self._connection.ready_in_era()
            wait = 0.0 if self._woken else block
            replies = await live.write(command(wait), 1, self._connection.command_timeout + wait, most_bytes)
            if not self._connection.is_current(live):
                raise BusUnavailable("another server took the place of the one that was read from; try again")
            return replies
        except asyncio.CancelledError:
            # The server still waits on this connection, and what it would deliver would be thrown away unseen.
            self._connection.drop("the read was cancelled")
            raise
        finally:
            self._blocked = None
            self._woken = False

    async def _unblock(self) -> bool:
        client_id = self._connection.client_id
        if client_id is None:
            return False
        try:
            [reply] = await self._control.replies([("CLIENT", "UNBLOCK", client_id)])
        except HyperbusError:
            return True
        # A server that refuses (NOPERM) refuses again; the read returns when its time is over.
        return bool(reply)

    async def _wait_for_nothing(self, block: Seconds) -> Read:
        """Wait as a read would that has no stream to wait for."""
        if block > 0 and not self._woken:
            self._idle = asyncio.Event()
            try:
                async with asyncio.timeout(block):
                    await self._idle.wait()
            except TimeoutError:
                pass
            finally:
                self._idle = None
        self._woken = False
        if self._closed:
            raise BusUnavailable("this reader is closed: open another one")
        return []
