"""A way to a server that takes so many bytes a second, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

_PIECE = 16 * 1024


@asynccontextmanager
async def slow_link(port: int, *, bytes_per_second: int) -> AsyncGenerator[int]:
    """Yield a port of this machine, behind which a server's port is; what the server sends comes slowly."""
    free_at = 0.0
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slowly: bool) -> None:
        nonlocal free_at
        now = asyncio.get_running_loop().time
        try:
            while data := await reader.read(_PIECE):
                if slowly:
                    free_at = max(free_at, now()) + len(data) / bytes_per_second
                    await asyncio.sleep(free_at - now())
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # one end is gone, and the other goes with it
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # a small buffer: else the system takes in on the way what the link has not brought yet
        there, back = await asyncio.open_connection("127.0.0.1", port, limit=_PIECE)
        for task in (carry(reader, back, slowly=False), carry(there, writer, slowly=True)):
            tasks.add(running := asyncio.create_task(task))
            running.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
