"""A small HTTP/1.1 server on asyncio streams: GET and HEAD, a fixed set of routes, one request a connection.

It bounds what a client may cost (head size, time, number of connections) and never serves files or reads bodies.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from hyperbus.clock import Seconds
from hyperbus.errors import HyperbusError, InvalidSettingError, PortInUseError
from hyperbus.http.open_files import open_files
from hyperbus.logger import get_logger

#: A request's line and headers may take this many bytes, and this long to arrive.
MAX_HEAD_BYTES = 8 * 1024
HEAD_TIMEOUT: Seconds = 5.0
#: How long a route may take to answer, and a client to take the answer.
ROUTE_TIMEOUT: Seconds = 10.0
WRITE_TIMEOUT: Seconds = 10.0
#: Connections at once; more are told to come back.
MAX_CONNECTIONS = 64
#: What a refused client may still send before its connection is cut.
_LINGER_BYTES = 64 * 1024
_LINGER_TIMEOUT: Seconds = 1.0
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Response:
    """What a route answers."""

    status: int
    content_type: str
    body: bytes


Route = Callable[[], Awaitable[Response]]


class _Refused(Exception):  # noqa: N818 - it ends a request, it is no fault of ours
    """A request that gets no further than its head."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class HttpServer:
    """Serves `routes` (path to coroutine function) on `host` and `port`; port 0 takes a free one.

    Bound to a loopback address it answers only requests whose Host header names one, so that a web page
    cannot read it through a name that it points at this machine.
    """

    def __init__(self, host: str, port: int, routes: Mapping[str, Route]) -> None:
        self._host = host
        self._wanted_port = port
        self._routes = dict(routes)
        self._connections: set[asyncio.Task[None]] = set()
        #: Those of them that wait for their client, by when they began to: it has not asked yet, or takes no answer.
        self._idle: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._checks_host = True
        self._log = get_logger("hyperbus.http")

    @property
    def port(self) -> int:
        """The port that is listened on; only between start and stop."""
        if self._server is None or not self._server.sockets:
            raise HyperbusError("the HTTP server does not run: await start() first")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            PortInUseError: somebody else listens on the port.
            InvalidSettingError: the host or the port cannot be listened on.
        """
        try:
            self._server = await asyncio.start_server(
                self._accept, self._host, self._wanted_port, limit=MAX_HEAD_BYTES, backlog=_most_connections()
            )
        except OSError as error:
            raise _cannot_listen(self._host, self._wanted_port, error) from error
        addresses = [socket.getsockname()[0] for socket in self._server.sockets]
        self._checks_host = all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses)

    async def stop(self) -> None:
        """Stop listening, cut what is open, and wait until all of it has ended."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        tasks = tuple(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        most = _most_connections()
        crowded = len(self._connections) - len(self._leaving) >= most and not self._make_way()
        task = asyncio.create_task(self._serve(reader, writer, crowded=crowded))
        if len(self._connections) >= 2 * most:  # even telling them to come back has a limit
            writer.transport.abort()
        self._connections.add(task)
        if not crowded:
            self._idle[task] = writer
        task.add_done_callback(self._forget)

    def _make_way(self) -> bool:
        """Cut the connection that has waited longest for its client; False if there is none: all are being answered."""
        oldest = next(iter(self._idle), None)
        if oldest is None:
            return False
        self._idle.pop(oldest).transport.abort()
        self._leaving.add(oldest)
        return True

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._leaving.discard(task)
        self._idle.pop(task, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, crowded: bool) -> None:
        try:
            await self._converse(reader, writer, crowded=crowded)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client went away, or is too slow to be served
        except Exception as error:  # noqa: BLE001 - one connection must not end the server
            self._log.error("request failed", error=repr(error))
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, crowded: bool) -> None:
        head_only = False
        unread = False
        try:
            if crowded:
                raise _refuse(503, f"{_most_connections()} connections are open already; try again\n")
            method, path = self._check(await _read_head(reader))
            head_only = method == "HEAD"
            response = await self._answered(path, writer)
        except _Refused as refused:
            response, unread = refused.response, True
        writer.write(_render(response, head_only=head_only))
        async with asyncio.timeout(WRITE_TIMEOUT):
            await writer.drain()
        if unread:
            # A connection that is closed over unread bytes is reset, and the client might never see why.
            writer.write_eof()
            async with asyncio.timeout(_LINGER_TIMEOUT):
                await reader.readexactly(_LINGER_BYTES)

    async def _answered(self, path: str, writer: asyncio.StreamWriter) -> Response:
        """Have a route answer. Who waits for that makes way for nobody; who then takes long to read the answer does."""
        task = asyncio.current_task()
        assert task is not None
        self._idle.pop(task, None)
        try:
            return await self._answer(path)
        finally:
            self._idle[task] = writer

    def _check(self, head: list[bytes]) -> tuple[str, str]:
        try:
            method, target, version = head[0].decode("ascii").split(" ")
        except (UnicodeDecodeError, ValueError):
            raise _refuse(400, "not an HTTP request\n") from None
        if version not in ("HTTP/1.1", "HTTP/1.0") or not target.startswith("/"):
            raise _refuse(400, "only HTTP/1.0 and HTTP/1.1 requests for a path are understood\n")
        hosts = [line.partition(b":")[2].strip() for line in head[1:] if line.lower().startswith(b"host:")]
        if len(hosts) > 1 or (version == "HTTP/1.1" and not hosts):
            raise _refuse(400, "a request needs one Host header\n")
        if hosts and self._checks_host and not _is_loopback(hosts[0]):
            raise _refuse(403, "this server listens on loopback only: ask for it as localhost or 127.0.0.1\n")
        if method not in ("GET", "HEAD"):
            raise _refuse(405, "only GET and HEAD are allowed\n")
        return method, target.partition("?")[0]

    async def _answer(self, path: str) -> Response:
        route = self._routes.get(path)
        if route is None:
            return Response(404, _TEXT, "\n".join(["not found; there is:", *self._routes, ""]).encode())
        try:
            async with asyncio.timeout(ROUTE_TIMEOUT):
                return await route()
        except TimeoutError:
            return Response(503, _TEXT, f"no answer within {ROUTE_TIMEOUT:g} s\n".encode())
        except Exception as error:  # noqa: BLE001 - a route is somebody else's code
            self._log.error("route failed", path=path, error=repr(error))
            return Response(500, _TEXT, b"the answer could not be made; the log says why\n")


def _most_connections() -> int:
    """Return how many connections there may be: few where few files may be open."""
    limit, _ = open_files()
    return min(MAX_CONNECTIONS, max(limit // 6, 1))


async def _read_head(reader: asyncio.StreamReader) -> list[bytes]:
    try:
        async with asyncio.timeout(HEAD_TIMEOUT):
            head = await reader.readuntil(b"\r\n\r\n")
    except TimeoutError:
        raise _refuse(408, f"the request took longer than {HEAD_TIMEOUT:g} s to arrive\n") from None
    except asyncio.LimitOverrunError:
        raise _refuse(431, f"the request head is larger than {MAX_HEAD_BYTES} bytes\n") from None
    if len(head) > MAX_HEAD_BYTES:
        raise _refuse(431, f"the request head is larger than {MAX_HEAD_BYTES} bytes\n")
    return head[:-4].split(b"\r\n")


def _render(response: Response, *, head_only: bool) -> bytes:
    status = HTTPStatus(response.status)
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        lines.append("Retry-After: 1")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if head_only else head + response.body


def _refuse(status: int, text: str) -> _Refused:
    return _Refused(Response(status, _TEXT, text.encode()))


def _is_loopback(host: bytes) -> bool:
    text = host.decode("latin-1").lower()
    name, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):
        name, port = text, ""
    return name in _LOOPBACK_NAMES and (not port or port.isdecimal())


def _cannot_listen(host: str, port: int, error: OSError) -> HyperbusError:
    if error.errno == errno.EADDRINUSE:
        return PortInUseError(
            f"port {port} is taken on {host}; choose another with --http-port (0 takes a free one), "
            f"or stop the program that uses it"
        )
    return InvalidSettingError(
        f"cannot listen on {host} port {port}: {error.strerror or error}; "
        f"choose an address of this machine (--host) and a port from 1024 up (--http-port)"
    )
