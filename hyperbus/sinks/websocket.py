"""Shows events to WebSocket clients as they happen. It keeps nothing: who is not connected sees nothing."""

from __future__ import annotations

import errno
import hmac
import ipaddress
import logging
import os
import socket
import time
from collections.abc import Collection, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

from hyperbus.clock import Seconds
from hyperbus.errors import HyperbusError, InvalidSettingError, MissingExtraError, PortInUseError
from hyperbus.event.envelope import Event
from hyperbus.event.json_text import shown
from hyperbus.logger import get_logger
from hyperbus.settings import Settings, load_settings
from hyperbus.sinks.event_filter import EventFilter
from hyperbus.sinks.websocket_client import TRY_AGAIN_LATER, WebSocketClient

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.http11 import Request, Response

    from hyperbus.sinks.websocket_connection import BoundedConnection

#: The file descriptor of a listening socket that the supervisor bound for all its processes.
SOCKET_VARIABLE = "HYPERBUS_WEBSOCKET_FD"
#: What a client may say in one message.
MAX_MESSAGE_BYTES = 4 * 1024
#: Messages, and their bytes, that may wait for one client.
QUEUE_LENGTH = 1_000
QUEUE_BYTES = 16 * 1024 * 1024
MAX_CLIENTS = 1_000
PING_INTERVAL: Seconds = 20.0
CLOSE_TIMEOUT: Seconds = 5.0
#: How often it is told that clients were let go.
_TELL_INTERVAL: Seconds = 10.0
_ONLY_THIS_MACHINE = (
    "without a token only clients on this machine are let in: "
    "set HYPERBUS_WEBSOCKET_TOKEN, or HYPERBUS_WEBSOCKET_ACCESS=everybody\n"
)


class WebSocketBroadcaster:
    """A WebSocket server; needs the extra `websocket`.

    Clients choose with `?types=workflow.*,audit.completed&workflow_id=wf-1`, and again at any time with a message
    `{"types": [...], "workflow_id": [...]}`.

    Args:
        host: where to listen.
        port: the port to listen on; 0 takes a free one.
        sock: a socket that listens already; instead of `host` and `port`.
        token: clients have to show it, as `Authorization: Bearer ...` or `?token=...`. Without one ("") only clients on
            this machine are let in; None lets everybody in.
        origins: web origins whose pages may connect, besides those on this machine.
        max_clients: more are refused.
        queue_length: messages that may wait for a client; one that falls further behind is closed (1013).
        queue_bytes: the same, in bytes.

    Raises:
        MissingExtraError: the extra `websocket` is not installed.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8765,
        *,
        sock: socket.socket | None = None,
        token: str | None = "",
        origins: Collection[str] = (),
        max_clients: int = MAX_CLIENTS,
        queue_length: int = QUEUE_LENGTH,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        try:
            import websockets.asyncio.server

            from hyperbus.sinks.websocket_connection import connections_through
        except ImportError as error:
            raise MissingExtraError("WebSockets need websockets: pip install 'hyperbus[websocket]'") from error
        self._serve_websockets = websockets.asyncio.server.serve
        self._connections = connections_through(max_clients)
        self._host = host
        self._wanted_port = port
        self._socket = sock
        self._token = (token or "").encode()
        self._only_this_machine = token == ""
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self._max_clients = max_clients
        self._queue_length = queue_length
        self._queue_bytes = queue_bytes
        self._clients: set[WebSocketClient] = set()
        self._fell_behind = 0
        self._let_go = 0
        self._told_at = float("-inf")
        self._server: Server | None = None
        self._log = get_logger("hyperbus.websocket")

    @classmethod
    def from_settings(cls, settings: Settings | None = None) -> WebSocketBroadcaster:
        """Return a broadcaster as the settings say; on the supervisor's socket, if there is one."""
        found = settings or load_settings()
        return cls(
            found.host,
            found.websocket_port,
            sock=_inherited_socket(),
            token=found.websocket_token or (None if found.websocket_access == "everybody" else ""),
            origins=[origin.strip() for origin in found.websocket_origins.split(",") if origin.strip()],
        )

    @property
    def port(self) -> int:
        """The port that is listened on; only between start and stop."""
        if self._server is None:
            raise HyperbusError("the WebSocket server does not run: await start() first")
        port: int = self._server_sockets()[0].getsockname()[1]
        return port

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    @property
    def fell_behind(self) -> int:
        """How many clients were let go because they read too slowly."""
        return self._fell_behind

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            PortInUseError: somebody else listens on the port.
            InvalidSettingError: the host or the port cannot be listened on.
        """
        place: dict[str, Any] = {"host": self._host, "port": self._wanted_port}
        if self._socket is not None:
            place = {"sock": self._socket}
        try:
            self._server = await self._serve_websockets(
                self._attend,
                **place,
                process_request=self._check,
                create_connection=self._connections,  # type: ignore[arg-type]  # a factory does
                server_header=None,
                compression=None,  # costs more time and memory, a client, than it saves on short messages
                max_size=MAX_MESSAGE_BYTES,
                max_queue=4,
                ping_interval=PING_INTERVAL,
                ping_timeout=PING_INTERVAL,
                close_timeout=CLOSE_TIMEOUT,
                logger=_silent_logger(),
            )
        except OSError as error:
            raise self._cannot_listen(error) from error
        self._tell_who_may_come()

    def broadcast(self, event_type: str, workflow_id: str | None, body: bytes) -> None:
        """Queue `body`, a JSON envelope, for every client that wants it. Never waits."""
        behind = [
            client for client in self._clients if client.wants(event_type, workflow_id) and not client.offer(body)
        ]
        for client in behind:
            self._clients.discard(client)
        if behind:
            self._fell_behind += len(behind)
            self._log.warning("clients fell behind and were let go", count=len(behind), total=self._fell_behind)

    def broadcast_event(self, event: Event[Any], body: bytes) -> None:
        """Queue an event, given the bytes of its entry; bytes that are no JSON in UTF-8 are written again as that."""
        if self._clients:
            self.broadcast(event.type, event.workflow_id, shown(event, body))

    async def stop(self) -> None:
        """Say goodbye to every client (1001) and wait until all of them are gone."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await server.wait_closed()

    def _server_sockets(self) -> Sequence[socket.socket]:
        return tuple(self._server.sockets) if self._server is not None else ()

    async def _attend(self, accepted: ServerConnection) -> None:
        connection = cast("BoundedConnection", accepted)
        request = connection.request
        wanted = EventFilter.from_target("/" if request is None else request.path)
        client = WebSocketClient(connection, wanted, queue_length=self._queue_length, queue_bytes=self._queue_bytes)
        if len(self._clients) >= self._max_clients:
            await client.close(TRY_AGAIN_LATER, "too many clients")
            return
        self._clients.add(client)
        try:
            await client.serve()
        finally:
            self._clients.discard(client)
        if connection.overstepped.is_set():
            self._tell_let_go(connection.why)

    def _tell_let_go(self, why: str) -> None:
        """Tell of clients that did what they may not, at a bounded rate."""
        self._let_go += 1
        now = time.monotonic()
        if now - self._told_at >= _TELL_INTERVAL:
            self._told_at = now
            self._log.warning("a client was let go", reason=why, total=self._let_go)

    def _tell_who_may_come(self) -> None:
        if self._token or all(_is_this_machine(place.getsockname()) for place in self._server_sockets()):
            return
        if self._only_this_machine:
            self._log.warning(
                "other machines can reach the WebSocket port, and there is no token: only clients on this machine are "
                "let in. Set HYPERBUS_WEBSOCKET_TOKEN, or HYPERBUS_WEBSOCKET_ACCESS=everybody"
            )
        else:
            self._log.warning("everybody who reaches the WebSocket port sees every event: there is no token")

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse a request before it becomes a connection; None lets it pass."""
        origins = request.headers.get_all("Origin")
        if any(not self._may_come_from(origin) for origin in origins):
            return connection.respond(HTTPStatus.FORBIDDEN, "this origin is not in websocket_origins\n")
        if self._token and not self._shows_token(request):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "show the token: Authorization: Bearer TOKEN\n")
        if self._only_this_machine and not _is_this_machine(connection.remote_address):
            return connection.respond(HTTPStatus.UNAUTHORIZED, _ONLY_THIS_MACHINE)
        if len(self._clients) >= self._max_clients:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many clients; try again later\n")
        try:
            EventFilter.from_target(request.path)
        except InvalidSettingError as error:
            return connection.respond(HTTPStatus.BAD_REQUEST, f"{error}\n")
        return None

    def _may_come_from(self, origin: str) -> bool:
        """Programs send no origin; browsers send the page's, and a page must not read what is not meant for it."""
        return origin.rstrip("/").lower() in self._origins or _is_loopback(origin)

    def _shows_token(self, request: Request) -> bool:
        shown = [
            value.partition(" ")[2].strip().encode()
            for value in request.headers.get_all("Authorization")
            if value[:7].lower() == "bearer "
        ]
        if not shown:
            try:
                shown = [value.encode() for value in parse_qs(urlsplit(request.path).query).get("token", ())]
            except ValueError:
                return False
        return len(shown) == 1 and hmac.compare_digest(shown[0], self._token)

    def _cannot_listen(self, error: OSError) -> HyperbusError:
        if error.errno == errno.EADDRINUSE:
            return PortInUseError(
                f"port {self._wanted_port} is taken on {self._host}; choose another with HYPERBUS_WEBSOCKET_PORT "
                f"(0 takes a free one), or stop the program that uses it"
            )
        return InvalidSettingError(
            f"cannot listen on {self._host} port {self._wanted_port}: {error.strerror or error}; choose an address of "
            f"this machine (HYPERBUS_HOST) and a port from 1024 up (HYPERBUS_WEBSOCKET_PORT)"
        )


def _inherited_socket() -> socket.socket | None:
    number = os.environ.get(SOCKET_VARIABLE)
    if not number:
        return None
    try:
        return socket.socket(fileno=os.dup(int(number)))  # a copy, so that a restart in this process finds it again
    except (ValueError, OSError) as error:
        raise InvalidSettingError(f"{SOCKET_VARIABLE}={number!r} is not an open socket: {error}") from error


def _is_this_machine(address: object) -> bool:
    """Tell whether a socket's address is one that only this machine reaches."""
    if not isinstance(address, tuple):
        return True  # a path of this machine
    host = str(address[0]).partition("%")[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _is_loopback(origin: str) -> bool:
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _silent_logger() -> logging.Logger:
    """A logger outside the tree: the library would log a traceback for every port scan."""
    logger = logging.Logger("hyperbus.websocket")  # noqa: LOG001 - so that nobody else's settings reach it
    logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.CRITICAL + 1)
    return logger
