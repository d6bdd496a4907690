"""A TCP proxy between clients and a server, which cuts, refuses, swallows, delays and drops. Knows no protocol."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

from tests.servers import free_port

_CHUNK = 64 * 1024


class _Connection:
    """One client's connection and its counterpart at the server."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._upstream: asyncio.StreamWriter | None = None
        #: Nothing passes any more, in either direction, and nobody is told. Never ends before the connection does.
        self.swallows = proxy.half_open
        self.drops_reply = False

    async def run(self) -> None:
        try:
            reader, self._upstream = await asyncio.open_connection("127.0.0.1", self._proxy.target)
        except OSError:
            self.cut()
            return
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(self._reader, self._upstream, is_reply=False))
                pumps.create_task(self._pump(reader, self._writer, is_reply=True))
        finally:
            self.cut()

    def cut(self) -> None:
        """End both sides at once, with what is under way."""
        for writer in (self._writer, self._upstream):
            if writer is not None:
                writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_reply: bool) -> None:
        """Pass bytes on in order, each piece as late as the latency at its arrival says."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1_000)
        passing = asyncio.create_task(self._pass_on(pieces, sink))
        try:
            while piece := await source.read(_CHUNK):
                if is_reply and self.drops_reply:
                    self.cut()
                    return
                if not self.swallows:
                    await pieces.put((loop.time() + self._proxy.latency / 2, piece))
        except OSError:
            pass
        else:
            if self.swallows and is_reply:
                return  # a half-open client hears nothing of the server's end either
            await pieces.put((0.0, b""))
            await asyncio.wait((passing,))
        finally:
            passing.cancel()
            await asyncio.wait((passing,))
            if not (self.swallows and is_reply):
                self.cut()

    async def _pass_on(self, pieces: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while True:
                due, piece = await pieces.get()
                if not piece:
                    return
                await asyncio.sleep(due - asyncio.get_running_loop().time())
                if not self.swallows:
                    sink.write(piece)
                    await sink.drain()


class Proxy:
    """Listens on a port of its own, which stays the same, and passes everything on to `target`, but for its faults.

    All of it runs in the event loop that entered it.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        #: New connections swallow; see `swallow`.
        self.half_open = False
        #: Seconds that a round trip takes longer.
        self.latency = 0.0
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        tasks = list(self._connections.values())
        self.cut()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    def cut(self) -> None:
        """Cut every connection."""
        for connection in list(self._connections):
            connection.cut()

    def refuse(self) -> None:
        """Let nobody connect any more; who is connected stays so."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def accept(self) -> None:
        """Let clients connect (again)."""
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    def swallow(self) -> None:
        """Make every connection half-open, and those to come: bytes vanish, and nobody is told."""
        self.half_open = True
        for connection in self._connections:
            connection.swallows = True

    def drop_replies(self) -> None:
        """On each connection throw away what the server says next, and cut it: done, and never heard of."""
        for connection in self._connections:
            connection.drops_reply = True

    async def heal(self) -> None:
        """End every fault. Connections that have become half-open stay so until their client gives them up."""
        self.half_open = False
        self.latency = 0.0
        for connection in self._connections:
            connection.drops_reply = False
        await self.accept()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._connections[connection] = task
        try:
            await connection.run()
        except asyncio.CancelledError:
            pass  # the proxy ends; the server's own callback would log it
        finally:
            connection.cut()
            del self._connections[connection]
