"""One WebSocket client of the broadcaster: its filter, its queue, and the two tasks that serve it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from hyperbus.errors import InvalidSettingError
from hyperbus.sinks.event_filter import EventFilter

if TYPE_CHECKING:
    from hyperbus.sinks.websocket_connection import BoundedConnection

#: Close codes of RFC 6455 and its registry.
POLICY_VIOLATION = 1008
TRY_AGAIN_LATER = 1013
#: A reason has to fit into one control frame.
_MAX_REASON_BYTES = 120
#: How much longer than reading a filter takes its client waits before the next one is read.
_REST = 10


class WebSocketClient:
    """Queues messages for one connection; a client whose queue is full has fallen behind and is let go."""

    def __init__(
        self, connection: BoundedConnection, wanted: EventFilter, *, queue_length: int, queue_bytes: int
    ) -> None:
        self._connection = connection
        self._wanted = wanted
        self._queue: deque[bytes] = deque()
        self._queue_length = queue_length
        self._queue_bytes = queue_bytes
        self._bytes = 0
        self._filled = asyncio.Event()
        self._behind = asyncio.Event()

    def wants(self, event_type: str, workflow_id: str | None) -> bool:
        """Tell whether the client asked for such an event."""
        return self._wanted.wants(event_type, workflow_id)

    def offer(self, message: bytes) -> bool:
        """Queue a message; False if the client has fallen behind, which ends it."""
        if len(self._queue) >= self._queue_length or self._bytes + len(message) > self._queue_bytes:
            self._queue.clear()
            self._bytes = 0
            self._behind.set()
            return False
        self._queue.append(message)
        self._bytes += len(message)
        self._filled.set()
        return True

    async def serve(self) -> None:
        """Send and listen until one of them ends, or the client falls behind or says too much; then close."""
        overstepped = self._connection.overstepped
        parts = (self._listen, self._send, self._behind.wait, overstepped.wait)
        tasks = [asyncio.create_task(part()) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        if tasks[2] in done:
            await self.close(TRY_AGAIN_LATER, "fell behind: read faster or ask for fewer events")
            return
        if overstepped.is_set():
            await self.close(POLICY_VIOLATION, self._connection.why)
            return
        refused = next((result for result in results if isinstance(result, InvalidSettingError)), None)
        if refused is not None:
            await self.close(POLICY_VIOLATION, str(refused))
            return
        for result in results:
            if isinstance(result, Exception) and not _is_closed(result):
                raise result

    async def close(self, code: int, reason: str) -> None:
        """Close the connection, by force if the client does not take part."""
        text = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        try:
            async with asyncio.timeout(self._connection.close_timeout):
                await self._connection.close(code, text)
        except TimeoutError:
            self._connection.transport.abort()

    async def _listen(self) -> None:
        """Follow what the client asks for. One of a hundred globs takes long to read, and others wait meanwhile."""
        clock = asyncio.get_running_loop().time
        async for message in self._connection:
            began = clock()
            self._wanted = EventFilter.from_message(message.encode() if isinstance(message, str) else message)
            await asyncio.sleep(_REST * (clock() - began))

    async def _send(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                message = self._queue.popleft()
                self._bytes -= len(message)
                await self._connection.send(message, text=True)


def _is_closed(error: Exception) -> bool:
    from websockets.exceptions import ConnectionClosed

    return isinstance(error, ConnectionClosed)
