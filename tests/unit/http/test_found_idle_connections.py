"""Connections that ask for nothing, or do not take their answer, keep nobody from `/healthz`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from hyperbus.http import server as server_module
from hyperbus.http.server import HttpServer, Response

#: What the server bears at once here, and what comes.
MOST, MANY = 8, 10
#: More than a system keeps for a client that does not read.
LARGE = 12_000_000
WITHIN = 60.0


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HttpServer]:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", MOST)

    async def health() -> Response:
        return Response(200, "text/plain", b"well\n")

    async def large() -> Response:
        return Response(200, "text/plain", b"x" * LARGE)

    running = HttpServer("127.0.0.1", 0, {"/healthz": health, "/large": large})
    await running.start()
    yield running
    await running.stop()


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def status(server: HttpServer) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request("/healthz"))
    async with asyncio.timeout(WITHIN):
        answer = await reader.read()
    writer.close()
    return int(answer.split()[1]) if answer else 0


async def flood(server: HttpServer, first: bytes) -> list[asyncio.StreamWriter]:
    """Open connections that say something, and then nothing; one after another, as from a program without end."""
    writers = []
    for _ in range(MANY):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
        with suppress(OSError):
            writer.write(first)
            await writer.drain()
        writers.append(writer)
    return writers


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET /heal", id="half a request"),
        pytest.param(request("/large"), id="a request, and the answer is not read"),
    ],
)
async def test_idle_connections_keep_nobody_from_an_answer(server: HttpServer, said: bytes) -> None:
    """Those that have waited longest for their client make way, again and again."""
    for _ in range(3):
        writers = await flood(server, said)
        assert await status(server) == 200
        assert await status(server) == 200
        for writer in writers:
            writer.transport.abort()
