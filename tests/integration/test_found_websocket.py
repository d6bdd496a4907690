"""WebSocket clients that cost too much, and events that are hard to show: nobody else pays for them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from consumers.websocket import WebSocketServer
from hyperbus import Bus, Event
from hyperbus.settings import Settings
from hyperbus.sinks.websocket import WebSocketBroadcaster
from tests.commands import Running, hyperbus, wait_for, write_modules
from tests.servers import Server

pytestmark = pytest.mark.one_server

Start = Callable[..., Any]
WITHIN = 60.0


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


def to(port: int, target: str = "/", host: str = "127.0.0.1", **options: Any) -> connect:
    return connect(
        f"ws://{host}:{port}{target}", **{"compression": None, "proxy": None, "open_timeout": WITHIN, **options}
    )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN):
        while not condition():
            await asyncio.sleep(0.002)


async def closed(client: ClientConnection) -> tuple[int, str]:
    """Read to the end; return how the server closed."""
    async with asyncio.timeout(WITHIN):
        try:
            while True:
                await client.recv()
        except ConnectionClosed as error:
            return (error.rcvd.code, error.rcvd.reason) if error.rcvd else (0, "cut off")


# -- events that are hard to show

_ENVELOPE = {"type": "hard.kind", "timestamp": "2026-01-01T00:00:00Z"}


def packed(name: str, value: Any) -> bytes:
    return msgspec.msgpack.encode({"id": name, **_ENVELOPE, "data": {"value": value}})


def plain(name: str, beside: bytes) -> bytes:
    """Return an event as JSON, with something beside its fields that readers skip."""
    return json.dumps({"id": name, **_ENVELOPE, "data": {}}).encode()[:-1] + b', "beside": ' + beside + b"}"


#: By id: the field of the entry, and its value.
HARD: dict[str, tuple[str, bytes]] = {
    "good first": ("data", plain("good first", b"1")),
    "extension": ("msgpack", packed("extension", msgspec.msgpack.Ext(5, b"\xff"))),
    "extension deep inside": ("msgpack", packed("extension deep inside", [{"x": [msgspec.msgpack.Ext(-7, b"")]}])),
    "keys that are lists": ("msgpack", packed("keys that are lists", {(1, 2): 3})),
    "keys that are null and true": ("msgpack", packed("keys that are null and true", {None: 1, True: 2})),
    "no number": ("msgpack", packed("no number", [float("nan"), float("inf"), 2**64 - 1])),
    "bytes": ("msgpack", packed("bytes", {b"\xff": b"\xff\x00"})),
    "no text beside": ("data", plain("no text beside", b'"\xff\xfe"')),
    "half a surrogate beside": ("data", plain("half a surrogate beside", b'"\xed\xa0\x80"')),
    "key beside that is no text": ("data", plain("key beside that is no text", b'{"\xc3": 1}')),
    "good last": ("data", plain("good last", '"Grüße"'.encode())),
}


def add(server: Server, prefix: str) -> None:
    for field, value in HARD.values():
        server.command("XADD", f"{prefix}:hard.kind", "*", field, value)


async def test_events_that_json_or_text_cannot_hold_are_shown_and_close_nobody(server: Server) -> None:
    """Each is one message, and every message is JSON; their neighbours in the batch are shown too."""
    settings = Settings(url=server.url, prefix="hard_shown", websocket_port=0, scan_interval=0.2)
    shown = WebSocketServer(WebSocketBroadcaster.from_settings(settings))
    async with Bus(settings=settings) as bus, bus.running(shown), to(shown.broadcaster.port) as client:
        await until(lambda: shown.broadcaster.clients == 1)
        add(server, "hard_shown")
        async with asyncio.timeout(WITHIN):
            messages = [json.loads(await client.recv()) for _ in HARD]
    assert [message["id"] for message in messages] == list(HARD)
    assert messages[-1]["beside"] == "Grüße"  # bytes that anybody can read stay as they are
    assert messages[0]["beside"] == 1


def test_tail_shows_events_that_json_cannot_hold(server: Server, tmp_path: Path) -> None:
    """Each is a line of JSON, and it goes on."""
    add(server, "hard_tail")
    ended = hyperbus(
        "tail", "hard.*", "--history", "--count", str(len(HARD)), "--url", server.url, "--prefix", "hard_tail",
        folder=tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert [json.loads(line)["id"] for line in ended.out.splitlines()] == list(HARD)


# -- clients that say too much


def masked(opcode: int, payload: bytes) -> bytes:
    """Return a client's frame; a mask of zeros is one, too."""
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


async def opened(port: int) -> socket.socket:
    """Return a socket whose handshake is done. It has small buffers, and nobody reads it."""
    sock = socket.socket()
    for which in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, which, 64 * 1024)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(
        sock,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    return sock


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(masked(0x9, b"x" * 125), id="pings"),
        pytest.param(masked(0x9, b""), id="empty pings"),
        pytest.param(masked(0xA, b"x" * 125), id="pongs"),
        pytest.param(masked(0x1, b'{"types":["a.*"]}'), id="filters"),
    ],
)
async def test_a_client_that_sends_without_end_is_cut(start: Start, frame: bytes) -> None:
    """Whether it reads or not. A neighbour sees what it asked for meanwhile."""
    broadcaster = await start()
    async with to(broadcaster.port) as neighbour:
        await until(lambda: broadcaster.clients == 1)
        sock = await opened(broadcaster.port)
        flood = frame * (2**18 // len(frame))

        async def send() -> None:
            for _ in range(80):  # 20 MB: far more than the system keeps for it
                await asyncio.get_running_loop().sock_sendall(sock, flood)

        with sock:
            sending = asyncio.create_task(send())
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(WITHIN):
                    await sending
        broadcaster.broadcast("a", None, b'{"n":1}')
        async with asyncio.timeout(WITHIN):
            assert json.loads(await neighbour.recv()) == {"n": 1}


async def test_a_client_that_changes_its_filter_without_end_is_told_why_it_is_let_go(start: Start) -> None:
    """1008, with words; a hundred changes at once are no crime."""
    broadcaster = await start()
    async with to(broadcaster.port) as client, to(broadcaster.port) as modest:
        for _ in range(100):
            await modest.send('{"types":["b"]}')

        async def change_without_end() -> None:
            for _ in range(20_000):
                await client.send('{"types":["a.*"]}')
                await asyncio.sleep(0)

        with pytest.raises(ConnectionClosed):
            await change_without_end()
        code, reason = await closed(client)
        assert code == 1008
        assert "too many" in reason
        await until(lambda: broadcaster.clients == 1)
        broadcaster.broadcast("b", None, b'{"n":2}')
        async with asyncio.timeout(WITHIN):
            assert json.loads(await modest.recv()) == {"n": 2}


async def test_a_client_that_pings_and_reads_nothing_is_let_go(start: Start) -> None:
    """At a rate that is allowed, too: answers that nobody reads would gather. The log says why."""
    broadcaster = await start(queue_bytes=100_000_000)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    sock.connect(("127.0.0.1", broadcaster.port))
    with capture_logs() as logs:
        async with to(broadcaster.port, sock=sock, max_queue=1, max_size=None) as client:
            await until(lambda: broadcaster.clients == 1)
            client.transport.pause_reading()
            broadcaster.broadcast("a", None, b'"' + b"x" * 40_000_000 + b'"')  # more than the system keeps
            await asyncio.sleep(0.2)
            for _ in range(150):
                await client.ping()
            await until(lambda: broadcaster.clients == 0)
            client.transport.abort()
    assert [line["reason"] for line in logs if line["event"] == "a client was let go"] == ["read what you are sent"]


# -- as many clients as there are open files


LIMITED = """
import resource
from pathlib import Path
from hyperbus import Consumer, Delivery, Event, consumer
from hyperbus.sinks.websocket import WebSocketBroadcaster

resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))

@consumer(group="limited", types=["limited.*"], audience="every_process", batch=500)
class Shown(Consumer):
    def __init__(self) -> None:
        self.broadcaster = WebSocketBroadcaster.from_settings()

    async def start(self) -> None:
        await self.broadcaster.start()

    async def handle(self, events: list[Event], deliveries: list[Delivery]) -> None:
        for event, delivery in zip(events, deliveries):
            self.broadcaster.broadcast_event(event, delivery.body)

    async def stop(self) -> None:
        await self.broadcaster.stop()

@consumer(group="limited_writers", types=["limited.*"])
async def write(event: Event) -> None:
    with Path({seen!r}).open("a") as file:
        file.write(event.data["name"] + "\\n")
"""


@contextmanager
def idle(port: int, count: int) -> Iterator[None]:
    """Hold connections that ask for nothing."""
    sockets = [socket.create_connection(("127.0.0.1", port), timeout=WITHIN) for _ in range(count)]
    try:
        yield
    finally:
        for sock in sockets:
            sock.close()


async def test_more_clients_than_open_files_leave_the_process_its_own(server: Server, tmp_path: Path) -> None:
    """Its consumers go on; clients beyond are refused; and those that ask for nothing make way for one that does."""
    seen = tmp_path / "seen"
    write_modules(tmp_path, limited=LIMITED.format(seen=str(seen)))
    variables = {
        "HYPERBUS_URL": server.url, "HYPERBUS_HTTP_PORT": "0", "HYPERBUS_WEBSOCKET_PORT": "0",
        "HYPERBUS_LOG_FORMAT": "json",
    }  # fmt: skip
    with Running("run", "limited", folder=tmp_path, variables=variables) as running:
        place = await asyncio.to_thread(running.wait_until_ready)
        workers = running.workers()
        port = int(place["websocket"].rpartition(":")[2])

        async def handles(name: str) -> None:
            await bus.publish(Event(type="limited.kind", data={"name": name}))
            await asyncio.to_thread(wait_for, lambda: seen.exists() and name in seen.read_text().split())

        async with Bus(server.url) as bus:
            with idle(port, 300):
                await handles("while-they-are-idle")
                async with to(port) as client:
                    await handles("for-one-that-asks")
                    async with asyncio.timeout(WITHIN):
                        while json.loads(await client.recv())["data"]["name"] != "for-one-that-asks":
                            pass
            async with AsyncExitStack() as stack:
                results = await asyncio.gather(
                    *(stack.enter_async_context(to(port)) for _ in range(200)), return_exceptions=True
                )
                await handles("while-they-are-many")
                refused = [result for result in results if isinstance(result, BaseException)]
                assert all(isinstance(result, OSError | InvalidHandshake | EOFError) for result in refused), refused
                assert 20 <= len(results) - len(refused) < 160
                clients = [result for result in results if not isinstance(result, BaseException)]
                async with asyncio.timeout(WITHIN):
                    for client in clients:
                        while json.loads(await client.recv())["data"]["name"] != "while-they-are-many":
                            pass
        assert running.workers() == workers
        assert len(running.log("worker process died")) == 0
        assert await asyncio.to_thread(running.stop) == 0


# -- who may come


def own_address() -> str:
    """Return an address of this machine that is no loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but its loopback ones")
        host: str = probe.getsockname()[0]
    if host.startswith(("127.", "0.")):
        pytest.skip("this machine has no address but its loopback ones")
    return host


async def test_without_a_token_a_port_that_others_reach_is_open_to_this_machine_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others are refused, and whoever starts it is told; a token lets them in."""
    address = own_address()
    monkeypatch.delenv("HYPERBUS_WEBSOCKET_FD", raising=False)
    with capture_logs() as logs:
        closed_one = WebSocketBroadcaster.from_settings(Settings(host="0.0.0.0", websocket_port=0))
        await closed_one.start()
        with_token = WebSocketBroadcaster.from_settings(
            Settings(host="0.0.0.0", websocket_port=0, websocket_token="sesame")
        )
        await with_token.start()
    assert len([line for line in logs if line["log_level"] == "warning" and "token" in line["event"]]) == 1
    try:
        with pytest.raises(InvalidStatus) as refused:
            async with to(closed_one.port, host=address):
                pass
        assert refused.value.response.status_code == 401
        assert b"HYPERBUS_WEBSOCKET_TOKEN" in refused.value.response.body
        async with to(closed_one.port), to(with_token.port, "/?token=sesame", host=address):
            pass
    finally:
        await closed_one.stop()
        await with_token.stop()
