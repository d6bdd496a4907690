"""One connection to the broadcaster: what its client may cost before it has said who it is, and by what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from websockets.asyncio.server import ServerConnection

from hyperbus.http.open_files import open_files
from hyperbus.logger import get_logger

#: What a client says, frame by frame: so many at once, and so many a second.
BURST = 200
FRAMES_A_SECOND = 20.0
#: So many while what it was sent before waits to be read.
MOST_UNREAD = 100
#: How long such a client may take to say goodbye.
GOODBYE = 1.0
#: Bytes that are looked at before its frames are counted: at the least of all frames, some hundreds.
_SLICE = 4 * 1024
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 17\r\nRetry-After: 1\r\n\r\n"
    b"too many clients\n"
)


class Door:
    """Lets connections in while there is room. One that has not asked for anything yet makes way for a newer one.

    What it bounds is open files: a process that has none left can neither read nor say that it lives.

    Args:
        most: connections whose request has not come yet, at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._opening: dict[BoundedConnection, None] = {}
        self._inside: set[BoundedConnection] = set()
        self._told = False
        self._log = get_logger("hyperbus.websocket")

    def enter(self, connection: BoundedConnection, descriptor: int) -> bool:
        """Take a connection in; False when there is no room for it."""
        limit, reserved = open_files()
        scarce = descriptor >= limit - reserved // 2  # the system takes the lowest that is free: others hold many
        if scarce or len(self._inside) >= limit - reserved or len(self._opening) >= self._most:
            self._tell(limit)
            if not self._make_way() or scarce:
                return False
        self._opening[connection] = None
        self._inside.add(connection)
        return True

    def asks(self, connection: BoundedConnection) -> None:
        """Its request has come."""
        self._opening.pop(connection, None)

    def leaves(self, connection: BoundedConnection) -> None:
        """It is gone."""
        self._opening.pop(connection, None)
        self._inside.discard(connection)

    def _make_way(self) -> bool:
        oldest = next(iter(self._opening), None)
        if oldest is None:
            return False
        self.leaves(oldest)
        oldest.transport.abort()
        return True

    def _tell(self, limit: int) -> None:
        if not self._told:
            self._told = True
            self._log.warning(
                "no room for more clients: who has not asked for anything yet makes way, others are refused",
                clients=len(self._inside),
                open_files_limit=limit,
            )


class BoundedConnection(ServerConnection):
    """A connection whose client may say only so much.

    The library answers pings by itself, whether the client reads or not, and hands on as many messages as come.

    Attributes:
        overstepped: set when its client has said too much; `why` is told to it.
    """

    def __init__(self, *arguments: Any, door: Door, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._door = door
        self._left = float(BURST)
        self._counted_at = self.loop.time()
        self._unread = 0
        self.overstepped = asyncio.Event()
        self.why = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or refuse at once: what waits for its turn costs a descriptor too."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if not self._door.enter(self, -1 if sock is None else sock.fileno()):
            self.transport.write(_FULL)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._door.leaves(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Look at what came, a little at a time, until it is too much."""
        for begin in range(0, len(data), _SLICE):
            if self.overstepped.is_set():
                self._stop_reading()
                return
            super().data_received(data[begin : begin + _SLICE])

    def process_event(self, event: Any) -> None:
        """Take a request, or a frame."""
        if self.request is None:
            self._door.asks(self)
        else:
            self._count()
        super().process_event(event)

    def resume_writing(self) -> None:
        """The client has read."""
        self._unread = 0
        super().resume_writing()

    def _count(self) -> None:
        now = self.loop.time()
        self._left = min(BURST, self._left + (now - self._counted_at) * FRAMES_A_SECOND) - 1
        self._counted_at = now
        if self.paused:
            self._unread += 1
        if self._left < 0:
            self._overstep(f"too many messages: at most {FRAMES_A_SECOND:g} a second")
        elif self._unread > MOST_UNREAD:
            self._overstep("read what you are sent")

    def _overstep(self, why: str) -> None:
        if not self.overstepped.is_set():
            self.why = why
            self.overstepped.set()
            self.close_timeout = GOODBYE
            self._stop_reading()

    def _stop_reading(self) -> None:
        """Take nothing more. The library takes this back when its own queue has room again."""
        with suppress(RuntimeError):  # it closes already
            self.transport.pause_reading()


def connections_through(most: int) -> Callable[..., BoundedConnection]:
    """Return what makes connections to one server; `most` may wait for their request to be answered."""
    door = Door(most)

    def make(*arguments: Any, **options: Any) -> BoundedConnection:
        return BoundedConnection(*arguments, door=door, **options)

    return make
