"""The proxy that the chaos suite puts before a server: each fault does what its name says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.chaos.proxy import Proxy


class Echo:
    """Answers every line with itself, and remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(line)
        except OSError:
            pass
        finally:
            writer.transport.abort()


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, Proxy]]:
    server = Echo()
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    async with Proxy(listening.sockets[0].getsockname()[1]) as proxy:
        yield server, proxy
    listening.close()
    while OPEN:
        writer = OPEN.pop()
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


#: What the test at hand has connected.
OPEN: list[asyncio.StreamWriter] = []


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, line: bytes) -> bytes:
        self.writer.write(line)
        try:
            async with asyncio.timeout(10):
                return await self.reader.readline()
        except OSError:
            return b""

    async def is_silent(self, line: bytes) -> bool:
        self.writer.write(line)
        try:
            async with asyncio.timeout(0.3):
                return not await self.reader.readline() and False
        except TimeoutError:
            return True


async def connect(proxy: Proxy) -> Client:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    OPEN.append(writer)
    return Client(reader, writer)


async def test_it_passes_bytes_on_both_ways(echo):
    """Without a fault nobody notices it."""
    client = await connect(echo[1])
    assert await client.ask(b"one\n") == b"one\n"
    large = b"x" * 60_000 + b"\n"
    assert await client.ask(large) == large


async def test_a_cut_ends_every_connection_and_lets_new_ones_in(echo):
    """Both clients see their end; a new one is served."""
    _, proxy = echo
    clients = [await connect(proxy) for _ in range(2)]
    assert [await client.ask(b"a\n") for client in clients] == [b"a\n", b"a\n"]
    proxy.cut()
    assert [await client.ask(b"b\n") for client in clients] == [b"", b""]
    assert await (await connect(proxy)).ask(b"c\n") == b"c\n"


async def test_refusing_keeps_the_port_for_later(echo):
    """Nobody connects meanwhile; afterwards the same address is served."""
    _, proxy = echo
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect(proxy)
    await proxy.heal()
    assert await (await connect(proxy)).ask(b"a\n") == b"a\n"


async def test_a_half_open_connection_says_nothing_and_never_recovers(echo):
    """Bytes vanish both ways without an end; after healing, only a new connection works."""
    server, proxy = echo
    client = await connect(proxy)
    assert await client.ask(b"a\n") == b"a\n"
    proxy.swallow()
    assert await client.is_silent(b"b\n")
    during = await connect(proxy)
    assert await during.is_silent(b"c\n")
    await proxy.heal()
    assert await client.is_silent(b"d\n")
    assert server.heard == [b"a\n"]
    assert await (await connect(proxy)).ask(b"e\n") == b"e\n"


async def test_latency_delays_a_round_trip(echo):
    """By as much as is asked, and in order."""
    client = await connect(echo[1])
    echo[1].latency = 0.2
    started = time.monotonic()
    assert await client.ask(b"a\n") == b"a\n"
    assert time.monotonic() - started > 0.19


async def test_a_dropped_reply_was_executed_and_never_heard(echo):
    """The server has done it; the client sees its connection end."""
    server, proxy = echo
    client = await connect(proxy)
    proxy.drop_replies()
    assert await client.ask(b"a\n") == b""
    assert server.heard == [b"a\n"]
    assert await (await connect(proxy)).ask(b"b\n") == b"b\n"
