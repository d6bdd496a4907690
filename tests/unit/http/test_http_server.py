"""The HTTP server answers its routes, refuses the rest, and lets no client cost more than its share."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from hyperbus.errors import InvalidSettingError, PortInUseError
from hyperbus.http import server as server_module
from hyperbus.http.server import HttpServer, Response


async def hello() -> Response:
    return Response(200, "text/plain", b"hello\n")


async def broken() -> Response:
    raise RuntimeError("no")


async def stuck() -> Response:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    server = HttpServer("127.0.0.1", 0, {"/hello": hello, "/broken": broken, "/stuck": stuck})
    await server.start()
    yield server
    await server.stop()


async def ask(server: HttpServer, request: bytes) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split(" ")[1]), headers, body


def request(path: str, *, method: str = "GET", host: str = "localhost") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


async def test_a_route_is_answered_with_its_response(server: HttpServer) -> None:
    """Status, content type, length and body arrive; a query string does not matter."""
    status, headers, body = await ask(server, request("/hello?x=1"))
    assert (status, headers["Content-Type"], headers["Content-Length"], body) == (200, "text/plain", "6", b"hello\n")


async def test_head_gets_the_headers_alone(server: HttpServer) -> None:
    """HEAD tells the length and sends no body."""
    status, headers, body = await ask(server, request("/hello", method="HEAD"))
    assert (status, headers["Content-Length"], body) == (200, "6", b"")


async def test_an_unknown_path_lists_the_routes(server: HttpServer) -> None:
    """A 404 says what there is."""
    status, _, body = await ask(server, request("/"))
    assert status == 404
    assert b"/hello\n" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused(server: HttpServer, method: str) -> None:
    """Even with a body behind it, the client sees why."""
    status, headers, _ = await ask(server, request("/hello", method=method) + b"x" * 20_000)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9464", 200),
        ("127.0.0.1:1", 200),
        ("[::1]", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("localhost.evil.example:80", 403),
        ("localhost:80:80", 403),
        ("localhost:x", 403),
        ("", 403),
    ],
)
async def test_on_loopback_only_loopback_names_are_answered(server: HttpServer, host: str, status: int) -> None:
    """A page whose name was pointed at this machine gets nothing."""
    assert (await ask(server, request("/hello", host=host)))[0] == status


async def test_bound_to_every_address_any_name_is_answered() -> None:
    """The check would lock out everybody who is meant to reach it."""
    server = HttpServer("0.0.0.0", 0, {"/hello": hello})
    await server.start()
    assert (await ask(server, request("/hello", host="box.lan")))[0] == 200
    await server.stop()


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"\r\n\r\n",
        b"GET /hello HTTP/1.1\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET http://localhost/hello HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /hello HTTP/2.0\r\nHost: localhost\r\n\r\n",
        b"\xff\xfe / HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_not_a_request_is_refused(server: HttpServer, raw: bytes) -> None:
    """It is answered with 400, and the server goes on."""
    assert (await ask(server, raw))[0] == 400
    assert (await ask(server, request("/hello")))[0] == 200


@pytest.mark.parametrize("size", [8_193, 9_000, 100_000])
async def test_a_large_head_is_refused(server: HttpServer, size: int) -> None:
    """More than 8 KiB of head is 431, whether it ever ends or not."""
    head = b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX: "
    whole = head + b"x" * (size - len(head) - 4) + b"\r\n\r\n"
    assert (await ask(server, whole))[0] == 431


async def test_a_head_of_8_kib_is_taken(server: HttpServer) -> None:
    """The limit itself is allowed."""
    head = b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX: "
    assert (await ask(server, head + b"x" * (8192 - len(head) - 4) + b"\r\n\r\n"))[0] == 200


async def test_a_slow_client_blocks_nobody_and_is_refused(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one client dawdles another is answered; the first gets 408 when its time is up."""
    monkeypatch.setattr(server_module, "HEAD_TIMEOUT", 0.3)
    slow = asyncio.create_task(ask(server, b"GET /hel"))
    assert (await ask(server, request("/hello")))[0] == 200
    assert not slow.done()
    assert (await slow)[0] == 408


async def test_a_route_that_raises_is_a_500(server: HttpServer) -> None:
    """Its error stays in the log."""
    status, _, body = await ask(server, request("/broken"))
    assert status == 500
    assert b"RuntimeError" not in body


async def test_a_route_that_hangs_is_a_503(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is told to come back."""
    monkeypatch.setattr(server_module, "ROUTE_TIMEOUT", 0.05)
    assert (await ask(server, request("/stuck")))[0] == 503


async def test_connections_are_limited(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than are being answered is a 503; when one leaves there is room again."""
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(server_module, "ROUTE_TIMEOUT", 60)
    open_ones = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
    for _, writer in open_ones:
        writer.write(request("/stuck"))
    await until(lambda: len(server._connections) == 3 and not server._idle)
    assert (await ask(server, request("/hello")))[0] == 503
    await until(lambda: len(server._connections) == 3)
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 4)
    assert (await ask(server, request("/hello")))[0] == 200
    for _, writer in open_ones:
        writer.close()
        await writer.wait_closed()


async def test_stop_ends_every_connection_and_frees_the_port() -> None:
    """Idle and busy connections end, no task is left, and the port can be taken again."""
    asked = asyncio.Event()

    async def stuck_and_told() -> Response:
        asked.set()
        return await stuck()

    server = HttpServer("127.0.0.1", 0, {"/stuck": stuck_and_told})
    await server.start()
    port = server.port
    idle, idle_writer = await asyncio.open_connection("127.0.0.1", port)
    busy, busy_writer = await asyncio.open_connection("127.0.0.1", port)
    busy_writer.write(request("/stuck"))
    await asked.wait()
    async with asyncio.timeout(10):
        await server.stop()
        assert await idle.read() == b""
        assert await busy.read() == b""
    assert not server._connections
    idle_writer.close()
    busy_writer.close()
    again = HttpServer("127.0.0.1", port, {})
    await again.start()
    await again.stop()
    await again.stop()


async def test_a_taken_port_is_named() -> None:
    """The error says which port and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError, match=rf"port {port} is taken.*--http-port"):
            await HttpServer("127.0.0.1", port, {}).start()


async def test_an_address_of_another_machine_is_refused() -> None:
    """The error says what to change."""
    with pytest.raises(InvalidSettingError, match="--host"):
        await HttpServer("192.0.2.1", 0, {}).start()


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)
