"""Real WebSocket clients see what they asked for, and none can harm the others."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hyperbus.errors import InvalidSettingError, PortInUseError
from hyperbus.event.codec import MessagePackCodec
from hyperbus.event.envelope import Event
from hyperbus.settings import Settings
from hyperbus.sinks import websocket as websocket_module
from hyperbus.sinks.websocket import SOCKET_VARIABLE, WebSocketBroadcaster

Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    running: list[WebSocketBroadcaster] = []

    async def begin(**options: Any) -> WebSocketBroadcaster:
        broadcaster = WebSocketBroadcaster(**{"port": 0, **options})
        await broadcaster.start()
        running.append(broadcaster)
        return broadcaster

    yield begin
    for broadcaster in running:
        await broadcaster.stop()


def to(broadcaster: WebSocketBroadcaster, target: str = "/", **options: Any) -> connect:
    return connect(f"ws://127.0.0.1:{broadcaster.port}{target}", **{"compression": None, "proxy": None, **options})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def received(client: ClientConnection, count: int) -> list[Any]:
    async with asyncio.timeout(10):
        return [json.loads(await client.recv()) for _ in range(count)]


async def closed(client: ClientConnection) -> tuple[int, str]:
    """Read to the end; return how the server closed."""
    async with asyncio.timeout(15):
        try:
            while True:
                await client.recv()
        except ConnectionClosed as error:
            return (error.rcvd.code, error.rcvd.reason) if error.rcvd else (0, "cut off")


def say(broadcaster: WebSocketBroadcaster, event_type: str, workflow_id: str | None = None, n: int = 0) -> None:
    broadcaster.broadcast(event_type, workflow_id, json.dumps({"type": event_type, "n": n}).encode())


async def test_clients_see_what_they_asked_for(start: Start) -> None:
    """In order, as text, each client by its own filter."""
    broadcaster = await start()
    async with (
        to(broadcaster) as everything,
        to(broadcaster, "/?types=workflow.*,audit.completed&workflow_id=wf-1") as some,
    ):
        await until(lambda: broadcaster.clients == 2)
        for n, (event_type, workflow_id) in enumerate(
            [("workflow.started", "wf-1"), ("workflow.started", "wf-2"), ("other", "wf-1"), ("audit.completed", "wf-1")]
        ):
            say(broadcaster, event_type, workflow_id, n)
        assert [message["n"] for message in await received(everything, 4)] == [0, 1, 2, 3]
        assert [message["n"] for message in await received(some, 2)] == [0, 3]
        say(broadcaster, "workflow.started", "wf-1")
        assert isinstance(await some.recv(), str)
    await until(lambda: broadcaster.clients == 0)


async def test_a_client_may_change_its_filter(start: Start) -> None:
    """From its message on it sees what it asked for last."""
    broadcaster = await start()
    async with to(broadcaster, "/?types=a") as client:
        await client.send(json.dumps({"types": ["b.*"], "workflow_id": ["wf-1"]}))
        await until(lambda: next(iter(broadcaster._clients)).wants("b.c", "wf-1"))
        say(broadcaster, "a", "wf-1", 1)
        say(broadcaster, "b.c", "wf-2", 2)
        say(broadcaster, "b.c", "wf-1", 3)
        assert [message["n"] for message in await received(client, 1)] == [3]


@pytest.mark.parametrize("message", ["hello", '{"types":["Not A Type"]}', b"\xff\x00", '{"typos":["a"]}'])
async def test_a_bad_message_closes_with_a_reason(start: Start, message: str | bytes) -> None:
    """1008, and words that say what was wrong."""
    broadcaster = await start()
    async with to(broadcaster) as client, to(broadcaster) as other:
        await client.send(message)
        code, reason = await closed(client)
        assert code == 1008
        assert reason
        await until(lambda: broadcaster.clients == 1)
        say(broadcaster, "a")
        await received(other, 1)


async def test_a_large_message_closes(start: Start) -> None:
    """A client has 4 KiB to say what it wants."""
    broadcaster = await start()
    async with to(broadcaster) as client:
        await client.send("x" * 5_000)
        assert (await closed(client))[0] == 1009


async def test_a_bad_query_is_refused_with_a_reason(start: Start) -> None:
    """Before it becomes a connection."""
    broadcaster = await start()
    with pytest.raises(InvalidStatus) as refused:
        async with to(broadcaster, "/?types=Not,A%20Type"):
            pass
    assert refused.value.response.status_code == 400
    assert b"cannot be an event type" in refused.value.response.body


async def test_without_the_token_nobody_comes_in(start: Start) -> None:
    """Neither with none, a wrong one, nor two; with it, by header or by query."""
    broadcaster = await start(token="sésame")
    for target, headers in [
        ("/", {}),
        ("/?token=wrong", {}),
        ("/?token=s%C3%A9sam", {}),
        ("/?token=s%C3%A9same&token=wrong", {}),
        ("/", {"Authorization": "Bearer wrong"}),
        ("/", {"Authorization": "Basic s"}),
        ("/?token=s%C3%A9same", {"Authorization": "Bearer wrong"}),
    ]:
        with pytest.raises(InvalidStatus) as refused:
            async with to(broadcaster, target, additional_headers=headers):
                pass
        assert refused.value.response.status_code == 401
    async with to(broadcaster, "/?token=s%C3%A9same"):
        pass
    plain = await start(token="sesame")
    async with to(plain, "/", additional_headers={"Authorization": "Bearer sesame"}):
        pass


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://localhost:3000", True),
        ("http://127.0.0.1", True),
        ("http://[::1]:8000", True),
        ("https://console.example", True),
        ("https://CONSOLE.example", True),
        ("https://evil.example", False),
        ("https://localhost.evil.example", False),
        ("https://evil.example#localhost", False),
        ("null", False),
        ("http://[::1", False),
    ],
)
async def test_pages_of_other_origins_are_refused(start: Start, origin: str | None, allowed: bool) -> None:
    """No origin, this machine and those listed may connect."""
    broadcaster = await start(origins=["https://console.example/"])
    headers = {} if origin is None else {"Origin": origin}
    status = 101
    try:
        async with to(broadcaster, additional_headers=headers):
            pass
    except InvalidStatus as refused:
        status = refused.response.status_code
    assert status == (101 if allowed else 403)


async def test_clients_are_limited(start: Start) -> None:
    """One more than allowed is told to come back, and may when one has left."""
    broadcaster = await start(max_clients=2)
    async with to(broadcaster):
        async with to(broadcaster):
            await until(lambda: broadcaster.clients == 2)
            with pytest.raises(InvalidStatus) as refused:
                async with to(broadcaster):
                    pass
            assert refused.value.response.status_code == 503
        await until(lambda: broadcaster.clients == 1)
        async with to(broadcaster):
            pass


async def test_a_client_that_reads_too_slowly_is_let_go(start: Start) -> None:
    """It is counted and closed with 1013; one that keeps up misses nothing."""
    broadcaster = await start(queue_length=50)
    async with to(broadcaster) as quick, to(broadcaster, max_queue=1) as slow:
        await until(lambda: broadcaster.clients == 2)
        reading = asyncio.create_task(received(quick, 400))
        body = b'{"x":"' + b"y" * 60_000 + b'"}'
        for _ in range(400):
            broadcaster.broadcast("a", None, body)
            await asyncio.sleep(0.001)
        assert len(await reading) == 400
        assert (broadcaster.fell_behind, broadcaster.clients) == (1, 1)
        assert (await closed(slow))[0] == 1013


async def test_a_client_that_reads_nothing_is_cut(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes no part in the goodbye either; its connection ends all the same, and so does stop."""
    monkeypatch.setattr(websocket_module, "CLOSE_TIMEOUT", 0.2)
    broadcaster = await start(queue_bytes=1_000_000)
    async with to(broadcaster) as client:
        client.transport.pause_reading()
        await until(lambda: broadcaster.clients == 1)
        while broadcaster.clients:
            broadcaster.broadcast("a", None, b'"' + b"y" * 100_000 + b'"')
            await asyncio.sleep(0)
        await until(lambda: not broadcaster._server.handler_tasks)
        client.transport.abort()


async def test_a_burst_arrives_whole(start: Start) -> None:
    """As many as fit the queue, in one turn of the loop."""
    broadcaster = await start()
    async with to(broadcaster) as client:
        await until(lambda: broadcaster.clients == 1)
        for n in range(1_000):
            say(broadcaster, "a", n=n)
        assert [message["n"] for message in await received(client, 1_000)] == list(range(1_000))


async def test_stop_says_goodbye(start: Start) -> None:
    """1001, and the port is free again."""
    broadcaster = await start()
    port = broadcaster.port
    async with to(broadcaster) as client:
        await until(lambda: broadcaster.clients == 1)
        stopping = asyncio.create_task(broadcaster.stop())
        assert (await closed(client))[0] == 1001
        await stopping
    assert broadcaster.clients == 0
    say(broadcaster, "a")
    await start(port=port)


async def test_a_taken_port_is_named(start: Start) -> None:
    """The error says which port and what to do."""
    broadcaster = await start()
    with pytest.raises(PortInUseError, match=rf"port {broadcaster.port} is taken.*HYPERBUS_WEBSOCKET_PORT"):
        await start(port=broadcaster.port)


async def test_two_servers_share_an_inherited_socket(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor's socket serves every process; one that stops takes it from nobody."""
    with socket.create_server(("127.0.0.1", 0)) as shared:
        monkeypatch.setenv(SOCKET_VARIABLE, str(shared.fileno()))
        port = shared.getsockname()[1]
        first = WebSocketBroadcaster.from_settings(Settings(websocket_port=1))
        second = WebSocketBroadcaster.from_settings(Settings(websocket_port=1))
        await first.start()
        await second.start()
        assert first.port == second.port == port
        await first.stop()
        async with to(second):
            await until(lambda: second.clients == 1)
        await second.stop()
        os.fstat(shared.fileno())


async def test_a_bad_inherited_socket_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the variable."""
    for value in ("x", "987654"):
        monkeypatch.setenv(SOCKET_VARIABLE, value)
        with pytest.raises(InvalidSettingError, match=SOCKET_VARIABLE):
            WebSocketBroadcaster.from_settings(Settings())


async def test_settings_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Port, token and origins come from them."""
    monkeypatch.delenv(SOCKET_VARIABLE, raising=False)
    broadcaster = WebSocketBroadcaster.from_settings(
        Settings(websocket_port=0, websocket_token="sesame", websocket_origins="https://a.example, https://b.example")
    )
    await broadcaster.start()
    async with to(broadcaster, "/?token=sesame", additional_headers={"Origin": "https://b.example"}):
        pass
    await broadcaster.stop()


async def test_an_event_that_came_as_messagepack_is_shown_as_json(start: Start) -> None:
    """A client reads JSON, whatever the bus writes; JSON goes through byte for byte."""
    broadcaster = await start()
    event: Event[Any] = Event(type="a", data={"x": 1}, workflow_id="wf-1")
    async with to(broadcaster, "/?workflow_id=wf-1") as client:
        await until(lambda: broadcaster.clients == 1)
        broadcaster.broadcast_event(event, MessagePackCodec().encode(event))
        broadcaster.broadcast_event(event, b'{"raw": 1 }')
        (decoded,) = await received(client, 1)
        assert (decoded["id"], decoded["data"]) == (event.id, {"x": 1})
        assert await client.recv() == '{"raw": 1 }'


async def test_a_burst_larger_than_the_queue_ends_the_client(start: Start) -> None:
    """The number of waiting messages is bounded, however small they are."""
    broadcaster = await start(queue_length=100)
    async with to(broadcaster) as client:
        await until(lambda: broadcaster.clients == 1)
        for n in range(101):
            say(broadcaster, "a", n=n)
        assert (broadcaster.clients, broadcaster.fell_behind) == (0, 1)
        assert (await closed(client))[0] == 1013
