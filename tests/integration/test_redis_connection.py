"""The Redis transport on a real server that is killed, stopped, silenced and refused."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import time
import uuid

import pytest

from hyperbus.errors import (
    AuthenticationError,
    BusUnavailable,
    GroupNotFoundError,
    OutOfMemoryError,
    PublishRefusedError,
    PublishUncertain,
    ServerError,
    UnsupportedServerError,
)
from hyperbus.transport import FIRST_ID, DeadLetter, NewEntry
from hyperbus.transports.embedded.transport import find_server
from hyperbus.transports.redis.protocol.commands import pack
from hyperbus.transports.redis.transport import RedisTransport


class Server:
    """A server process of this test's own."""

    def __init__(self, folder, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.options = options
        self.process = None
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        command = [
            find_server(),
            "--port",
            str(self.port),
            "--dir",
            str(self.folder),
            "--appendonly",
            "yes",
            "--save",
            "",
        ]
        self.process = subprocess.Popen([*command, *self.options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.01)

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = Server(tmp_path_factory.mktemp("server")).start()
    yield started
    started.kill()


@pytest.fixture
def own_server(tmp_path):
    started = Server(tmp_path).start()
    yield started
    started.process.send_signal(signal.SIGCONT)
    started.kill()


@pytest.fixture
async def transport(server):
    opened = RedisTransport(server.url, command_timeout=2)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def stream():
    return f"events:{uuid.uuid4().hex}"


def entries(stream, number=1):
    return [NewEntry(stream, b"data", b"%d" % i) for i in range(number)]


async def until(condition, timeout=10):
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(0.005)


# A server that says what a test wants.


class FakeServer:
    """Answers each command by its first word: with bytes, one of a list, or a function's; None is silence, b"" hangs up."""

    def __init__(self, **answers):
        self.answers = {"CLIENT": b"-ERR unknown\r\n", "EXISTS": b":0\r\n", "INFO": b"-ERR unknown\r\n"} | answers
        self.connections = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while line := await reader.readline():
                words = []
                for _ in range(int(line[1:])):
                    length = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(length + 2))[:-2].decode())
                answer = self.answers.get(words[0])
                if isinstance(answer, list):
                    answer = answer.pop(0) if answer else b""
                if callable(answer):
                    answer = answer(words)
                if answer == b"":
                    return
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def bulk(text):
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


async def test_an_old_server_is_refused_by_name():
    """The error names the version that was found and the one that is needed."""
    async with FakeServer(INFO=bulk("redis_version:6.2.0\r\nrun_id:1")) as fake:
        transport = RedisTransport(fake.url)
        with pytest.raises(UnsupportedServerError, match=r"Redis 6\.2\.0.*7\.0"):
            await transport.open()
        await transport.close()


async def test_a_server_that_still_loads_is_unavailable():
    """Its INFO answers already; a question about a key does not."""
    answers = {"INFO": bulk("redis_version:7.0.0"), "EXISTS": b"-LOADING Redis is loading the dataset in memory\r\n"}
    async with FakeServer(**answers) as fake:
        transport = RedisTransport(fake.url)
        with pytest.raises(BusUnavailable, match="LOADING"):
            await transport.open()
        await transport.close()


async def test_answers_that_came_before_the_connection_broke_count():
    """Of three appends two were answered: two ids and one uncertain."""
    async with FakeServer(XADD=[bulk("1-1"), b"-OOM no room\r\n", b""]) as fake:
        transport = RedisTransport(fake.url)
        first, second, third = await transport.streams.append(entries("events:x", 3))
        assert first == "1-1"
        assert type(second) is PublishRefusedError
        assert type(third) is PublishUncertain
        await transport.close()


async def test_callers_that_wait_share_one_attempt_to_connect():
    """Fifty calls to a silent server fail together, after one connect timeout, over one connection."""
    async with FakeServer(CLIENT=None) as fake:
        transport = RedisTransport(fake.url, connect_timeout=0.3)
        started = time.monotonic()
        calls = [transport.records.get(["x"]) for _ in range(50)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - started < 50 * 0.3 / 2
        assert {type(result) for result in results} == {BusUnavailable}
        assert fake.connections == 1
        await transport.close()


async def test_a_half_open_connection_is_found_out_by_the_command_timeout():
    """A server that stopped answering costs one timeout; the next call connects again."""
    async with FakeServer(TIME=[b"*2\r\n$1\r\n5\r\n$1\r\n0\r\n"] * 2) as fake:
        transport = RedisTransport(fake.url, command_timeout=0.2)
        assert await transport.records.server_time() == 5
        answers, fake.answers["TIME"] = fake.answers["TIME"], None
        async with asyncio.timeout(10):
            with pytest.raises(BusUnavailable, match="command timeout"):
                await transport.records.server_time()
            assert [type(one) for one in await transport.streams.append(entries("events:x"))] == [PublishUncertain]
        fake.answers["TIME"] = answers
        assert await transport.records.server_time() == 5
        await transport.close()


async def test_a_blocked_read_may_take_its_block_on_top_of_the_timeout():
    """It fails after block + command timeout, not before."""
    async with FakeServer(XREADGROUP=None) as fake:
        transport = RedisTransport(fake.url, command_timeout=0.1)
        reader = transport.open_reader()
        started = time.monotonic()
        with pytest.raises(BusUnavailable):
            await reader.read_group("g", "c", ["events:x"], count=1, block=0.4)
        assert 0.5 <= time.monotonic() - started < 10
        await transport.close()


# A real server.


async def test_nobody_listens():
    """The error names the address and asks the right question."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        transport = RedisTransport(f"redis://:s3cret@127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(BusUnavailable, match="is the server running") as caught:
            await transport.open()
        assert "s3cret" not in str(caught.value)
        assert [type(one) for one in await transport.streams.append(entries("events:x"))] == [BusUnavailable]
        await transport.close()


async def test_wrong_and_missing_passwords_are_authentication_errors(tmp_path):
    """Neither shows a password; the right one opens."""
    server = Server(tmp_path, "--requirepass", "right").start()
    try:
        for user in ("", ":wr0ng@", "someone:wr0ng@"):
            transport = RedisTransport(server.url.replace("//", f"//{user}"))
            with pytest.raises(AuthenticationError) as caught:
                await transport.open()
            assert "wr0ng" not in str(caught.value)
            await transport.close()
        transport = RedisTransport(server.url.replace("//", "//:right@"))
        await transport.open()
        assert "right" not in transport.description
        await transport.close()
    finally:
        server.kill()


async def test_cancelled_calls_leave_the_others_their_answers(transport):
    """Of 200 calls, many cancelled at any moment, each that goes on gets its own answer."""
    connection = transport._connection
    chance = random.Random(1)

    async def echo(number):
        [reply] = await connection.call(pack("ECHO", str(number)))
        assert int(reply) == number
        return number

    tasks = [asyncio.create_task(echo(number)) for number in range(200)]
    for task in tasks:
        if chance.random() < 0.5:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, int | asyncio.CancelledError) for one in done)
    assert [await echo(number) for number in range(20)] == list(range(20))


async def test_a_server_killed_in_flight_leaves_appends_uncertain_and_later_ones_unsent(own_server, stream):
    """SIGSTOP holds the answers back, SIGKILL loses them; the next append finds nobody."""
    transport = RedisTransport(own_server.url, command_timeout=5)
    await transport.open()
    assert all(isinstance(one, str) for one in await transport.streams.append(entries(stream, 2)))
    own_server.process.send_signal(signal.SIGSTOP)
    append = asyncio.create_task(transport.streams.append(entries(stream, 3)))
    read = asyncio.create_task(transport.records.get(["x"]))
    await until(
        lambda: asyncio.sleep(0, bool(transport._append_connection._live._calls and transport._connection._live._calls))
    )
    own_server.kill()
    assert {type(one) for one in await append} == {PublishUncertain}
    with pytest.raises(BusUnavailable):
        await read
    assert [type(one) for one in await transport.streams.append(entries(stream, 2))] == [BusUnavailable] * 2
    await transport.close()


async def test_after_a_restart_the_next_call_works(own_server, stream):
    """Connections come back by themselves, scripts too, and nothing that was acknowledged is lost."""
    transport = RedisTransport(own_server.url)
    await transport.open()
    reader = transport.open_reader()
    [first] = await transport.streams.append(entries(stream))
    await transport.streams.create_groups([(stream, "g", FIRST_ID)])
    assert await transport.streams.last_ids([stream]) == [first.encode()]
    assert len(await reader.read_group("g", "c", [stream], count=5, block=0)) == 1
    own_server.kill()
    own_server.start()

    async def works():
        try:
            return await transport.streams.last_ids([stream]) == [first.encode()]
        except BusUnavailable:
            return False

    await until(works)
    assert [entry.id for entry in await reader.read_pending("g", "c", stream, after=FIRST_ID, count=5)] == [
        first.encode()
    ]
    await transport.close()


async def test_a_blocked_read_fails_when_its_reader_is_closed(transport, stream):
    """Closing does not wait for the block."""
    reader = transport.open_reader()
    await transport.streams.create_groups([(stream, "g", FIRST_ID)])
    read = asyncio.create_task(reader.read_group("g", "c", [stream], count=1, block=30))
    await until(lambda: blocked(transport))
    await reader.close()
    with pytest.raises(BusUnavailable):
        await read


async def blocked(transport):
    [info] = await transport._connection.call(pack("INFO", "clients"))
    return b"blocked_clients:1" in info


async def test_wake_ends_a_blocked_read(transport, stream):
    """It returns [] long before its block is over, and the next read blocks again."""
    reader = transport.open_reader()
    await transport.streams.create_groups([(stream, "g", FIRST_ID)])
    async with asyncio.timeout(10):
        for _ in range(3):
            read = asyncio.create_task(reader.read_group("g", "c", [stream], count=1, block=30))
            await until(lambda: blocked(transport))
            await reader.wake()
            assert await read == []


async def test_a_wake_is_never_lost_however_close_to_the_read(transport, stream):
    """Before it, at its first step, or while its command travels: the read returns at once."""
    reader = transport.open_reader()
    await transport.streams.create_groups([(stream, "g", FIRST_ID)])
    async with asyncio.timeout(10):
        await reader.wake()
        assert await reader.read_group("g", "c", [stream], count=1, block=30) == []
        for turns in range(60):
            read = asyncio.create_task(reader.read_group("g", "c", [stream], count=1, block=30))
            for _ in range(turns % 6):
                await asyncio.sleep(0)
            await reader.wake()
            assert await read == []
        read = asyncio.create_task(reader.read_group("g", "c", [], count=1, block=30))
        await asyncio.sleep(0)
        await reader.wake()
        assert await read == []


async def test_a_read_whose_group_goes_away_says_so(transport, stream):
    """The stream is deleted under a blocked read."""
    reader = transport.open_reader()
    await transport.streams.create_groups([(stream, "g", FIRST_ID)])
    read = asyncio.create_task(reader.read_group("g", "c", [stream], count=1, block=30))
    await until(lambda: blocked(transport))
    await transport._connection.call(pack("DEL", stream))
    with pytest.raises(GroupNotFoundError):
        async with asyncio.timeout(10):
            await read


async def test_a_cancelled_read_does_not_hold_up_the_next_one(transport, stream):
    """The next read gets its own answer, over a new connection."""
    reader = transport.open_reader()
    await transport.streams.create_groups([(stream, "g", FIRST_ID)])
    read = asyncio.create_task(reader.read_group("g", "c", [stream], count=1, block=30))
    await until(lambda: blocked(transport))
    read.cancel()
    await asyncio.wait({read})
    async with asyncio.timeout(10):
        assert await reader.read_pending("g", "c", stream, after=FIRST_ID, count=1) == []


async def test_a_wake_that_overtakes_its_read_is_sent_again():
    """CLIENT UNBLOCK answers 0 while the read is on its way: that is no reason to stop."""
    unblocks = []

    def client(words):
        if words[1] == "UNBLOCK":
            unblocks.append(words[2])
            return b":%d\r\n" % (len(unblocks) > 2)
        return b":7\r\n" if words[1] == "ID" else b"+OK\r\n"

    async with FakeServer(CLIENT=client, XREADGROUP=None) as fake:
        transport = RedisTransport(fake.url)
        reader = transport.open_reader()
        read = asyncio.create_task(reader.read_group("g", "c", ["events:x"], count=1, block=30))
        await until(lambda: asyncio.sleep(0, bool(reader._connection._live and reader._connection._live._calls)))
        async with asyncio.timeout(10):
            await reader.wake()
        assert unblocks == ["7", "7", "7"]
        await reader.close()
        with pytest.raises(BusUnavailable):
            await read
        await transport.close()


async def test_a_full_server_refuses_appends_and_still_takes_what_drains_it(own_server, stream):
    """Appends and records are refused by name; reads, acks, renewals and dead letters go on."""
    transport = RedisTransport(own_server.url)
    await transport.open()
    reader = transport.open_reader()
    ids = await transport.streams.append(entries(stream, 3))
    await transport.streams.create_groups([(stream, "g", FIRST_ID)])
    await transport.records.put("heartbeat", b"x", ttl=60)
    await transport._connection.call(pack("CONFIG", "SET", "maxmemory", "1"))
    assert [type(one) for one in await transport.streams.append(entries(stream))] == [PublishRefusedError]
    with pytest.raises(OutOfMemoryError):
        await transport.records.put("other", b"x")
    assert await transport.records.renew(["heartbeat", "gone"], ttl=60) == [True, False]
    [(_, read)] = await reader.read_group("g", "c", [stream], count=5, block=0)
    letters = [DeadLetter(entry.id, entry.fields, "rejected", "E", "m", "t", 1, 1.0, 2.0) for entry in read[:2]]
    assert await transport.streams.dead_letter(stream, "g", "c", letters) == [True, True]
    assert await transport.streams.ack([(stream, "g", [ids[2].encode()])]) == [1]
    assert [letter for _, letter in await transport.streams.dead_letters(stream, "g")] == letters
    await transport.close()


async def test_a_demoted_server_is_unavailable_until_it_is_back(own_server, stream):
    """READONLY is no refusal of the event: the connection is given up, and a later append works."""
    transport = RedisTransport(own_server.url)
    await transport.open()
    await transport.streams.append(entries(stream))
    await transport._connection.call(pack("REPLICAOF", "127.0.0.1", "1"))
    live = transport._append_connection._live
    [result] = await transport.streams.append(entries(stream))
    assert type(result) is BusUnavailable
    await transport._connection.call(pack("REPLICAOF", "NO", "ONE"))
    [result] = await transport.streams.append(entries(stream))
    assert isinstance(result, str)
    assert transport._append_connection._live is not live
    await transport.close()


async def test_a_dead_letter_key_of_another_type_loses_nothing(transport, stream):
    """The script refuses before it acks."""
    reader = transport.open_reader()
    await transport.streams.append(entries(stream))
    await transport.streams.create_groups([(stream, "g", FIRST_ID)])
    [(_, [entry])] = await reader.read_group("g", "c", [stream], count=1, block=0)
    await transport._connection.call(pack("SET", f"{{{stream}}}:dead:g", "x"))
    letter = DeadLetter(entry.id, entry.fields, "rejected", "", "", "", 1, 1.0, 2.0)
    with pytest.raises(ServerError):
        await transport.streams.dead_letter(stream, "g", "c", [letter])
    assert (await transport.streams.pending_summaries([(stream, "g")]))[0].total == 1


async def test_large_batches_go_in_pieces_and_come_back_in_order(transport, stream):
    """20 MB of entries, with other calls between them."""
    batch = [NewEntry(stream, b"data", b"%d" % i + b"x" * 10_000) for i in range(2_000)]
    results, _ = await asyncio.gather(transport.streams.append(batch), transport.records.server_time())
    assert results == sorted(results, key=lambda one: tuple(map(int, one.split("-"))))
    stored = await transport.streams.range(stream, count=5_000)
    assert [entry.fields[1] for entry in stored] == [entry.body for entry in batch]


async def test_a_closed_transport_refuses_calls_and_may_be_opened_again(server):
    """Nothing connects by accident after close."""
    transport = RedisTransport(server.url)
    await transport.open()
    await transport.close()
    await transport.close()
    with pytest.raises(BusUnavailable, match="closed"):
        await transport.records.server_time()
    await transport.open()
    assert await transport.records.server_time() > 0
    await transport.close()


async def test_a_unix_socket_serves_as_well(tmp_path):
    """With a database number in the query."""
    server = Server(tmp_path, "--unixsocket", str(tmp_path / "s")).start()
    try:
        transport = RedisTransport(f"unix://{tmp_path / 's'}?db=3")
        await transport.open()
        await transport.records.put("x", b"1")
        assert await transport.records.get(["x", "y"]) == [b"1", None]
        assert os.fspath(tmp_path) in transport.description
        await transport.close()
    finally:
        server.kill()
