"""Appends that wait for replicas and disks, on servers that have them, have lost them, or cannot tell."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from hyperbus.errors import BusUnavailable, DurabilityUnsupported, NotDurable, PublishRefusedError
from hyperbus.transport import Durability, NewEntry
from hyperbus.transports.redis.transport import RedisTransport
from tests.conformance.harness import until
from tests.servers import Server, server_binaries

BINARIES = server_binaries()
ONE = Durability(replicas=1, timeout=5)


@pytest.fixture(scope="module", params=list(BINARIES))
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    """A server and its replica."""
    binary = BINARIES[request.param]
    with (
        Server(binary, arguments=["--repl-diskless-sync-delay", "0"]) as master,
        Server(binary, arguments=["--replicaof", f"127.0.0.1 {master.port}"]) as replica,
    ):
        yield master, replica


@pytest.fixture
async def transport(pair: tuple[Server, Server]) -> AsyncIterator[RedisTransport]:
    master, replica = pair
    await until(lambda: replica.command("INFO", "replication")["master_link_status"] == "up")
    await until(lambda: master.command("WAIT", 1, 10) == 1)
    transport = RedisTransport(master.url)
    await transport.open()
    yield transport
    await transport.close()


@pytest.fixture
def stream() -> str:
    return f"t{uuid.uuid4().hex}"


def entries(stream: str, number: int = 1) -> list[NewEntry]:
    return [NewEntry(stream, b"data", b"%d" % index) for index in range(number)]


async def test_what_returns_is_on_the_replica(
    transport: RedisTransport, pair: tuple[Server, Server], stream: str
) -> None:
    """Also when it is a batch of several pieces, or an append once."""
    await transport.streams.check_durability(ONE)
    ids = await transport.streams.append(entries(stream, 2_500), durability=ONE)
    assert all(isinstance(entry_id, str) for entry_id in ids)
    assert pair[1].command("XLEN", stream) == 2_500
    [(entry, event_id)] = [(entries(stream)[0], "e")]
    [first] = await transport.streams.append_once([(entry, event_id)], window=60, durability=ONE)
    assert isinstance(first, str)
    assert pair[1].command("XLEN", stream) == 2_501
    assert await transport.streams.append_once([(entry, event_id)], window=60, durability=ONE) == [first]


async def test_a_level_that_is_not_reached_names_the_entries(transport: RedisTransport, stream: str) -> None:
    """They are stored, under the ids that the errors carry; what is refused is still refused."""
    two = Durability(replicas=2, timeout=0.5)
    await transport.records.put("x", b"1")
    bad = NewEntry("hyperbus:events:x", b"data", b"1")
    first, refused, last = await transport.streams.append([entries(stream)[0], bad, entries(stream)[0]], durability=two)
    assert isinstance(first, NotDurable)
    assert isinstance(refused, PublishRefusedError)
    assert isinstance(last, NotDurable)
    assert "only 1 of 2 replicas" in str(first)
    stored = [entry.id.decode() for entry in await transport.streams.range(stream)]
    assert stored == [first.entry_id, last.entry_id]


async def test_a_repeat_waits_for_its_first_entry(
    transport: RedisTransport, pair: tuple[Server, Server], stream: str
) -> None:
    """Even from a connection that wrote nothing else: a WAIT there would say yes at once."""
    [entry] = entries(stream)
    master, replica = pair
    other = RedisTransport(master.url)
    await other.open()
    replica.command("REPLICAOF", "NO", "ONE")
    short = Durability(replicas=1, timeout=0.05)
    try:
        [first] = await transport.streams.append_once([(entry, "e")], window=60, durability=short)
        [again] = await other.streams.append_once([(entry, "e")], window=60, durability=short)
    finally:
        replica.command("REPLICAOF", "127.0.0.1", str(master.port))
        await other.close()
    assert isinstance(first, NotDurable)
    assert isinstance(again, NotDurable)
    assert again.entry_id == first.entry_id


async def test_waiting_holds_up_neither_acks_nor_other_appends(
    transport: RedisTransport, pair: tuple[Server, Server], stream: str
) -> None:
    """Those that wait do so on a connection of their own."""
    waiting = asyncio.create_task(
        transport.streams.append(entries(stream), durability=Durability(replicas=9, timeout=30))
    )
    await until(lambda: pair[0].command("XLEN", stream) == 1)
    await transport.streams.append(entries(stream))
    await transport.streams.ack([(stream, "g", [b"1-1"])])
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    # The next one is not held up by what the cancelled one asked for.
    async with asyncio.timeout(10):
        assert isinstance((await transport.streams.append(entries(stream), durability=ONE))[0], str)


async def test_appends_that_wait_at_the_same_time_all_get_their_answer(transport: RedisTransport, stream: str) -> None:
    """Each in its turn."""
    answers = await asyncio.gather(
        *(transport.streams.append(entries(stream), durability=ONE) for _ in range(20)),
        *(transport.streams.append(entries(stream), durability=Durability(replicas=9, timeout=0.01)) for _ in range(5)),
    )
    kinds = [type(answer) for [answer] in answers]
    assert kinds == [str] * 20 + [NotDurable] * 5
    assert len(await transport.streams.range(stream)) == 25


async def test_time_spent_in_the_queue_is_not_held_against_the_server(pair: tuple[Server, Server], stream: str) -> None:
    """Together they wait for longer than one command may take."""
    transport = RedisTransport(pair[0].url, command_timeout=0.5)
    await transport.open()
    never = Durability(replicas=9, timeout=0.1)
    answers = await asyncio.gather(*(transport.streams.append(entries(stream), durability=never) for _ in range(9)))
    await transport.close()
    assert [type(answer) for [answer] in answers] == [NotDurable] * 9
    assert all("only" in str(answer) for [answer] in answers)


async def test_a_closed_transport_sends_nothing(transport: RedisTransport, stream: str) -> None:
    """Each entry is told so."""
    await transport.close()
    answers = await transport.streams.append(entries(stream, 3), durability=ONE)
    assert [type(answer) for answer in answers] == [BusUnavailable] * 3


def expects_disk(server: Server, appendfsync: str) -> bool:
    """Tell whether this server can be trusted with WAITAOF."""
    info = server.command("INFO", "server")
    if "valkey_version" in info:
        return appendfsync == "always"
    return tuple(map(int, info["redis_version"].split("."))) >= (7, 4, 3)


@pytest.mark.parametrize("name", list(BINARIES))
@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
async def test_the_disk_is_trusted_where_the_server_tells_the_truth(name: str, appendfsync: str, stream: str) -> None:
    """Elsewhere it is refused with a reason, and a server without an append-only file is refused always."""
    with Server(BINARIES[name], appendonly=True, arguments=["--appendfsync", appendfsync]) as server:
        transport = RedisTransport(server.url)
        await transport.open()
        disk = Durability(disk=True, timeout=5)
        try:
            if expects_disk(server, appendfsync):
                await transport.streams.check_durability(disk)
                [answer] = await transport.streams.append(entries(stream), durability=disk)
                assert isinstance(answer, str)
            else:
                with pytest.raises(DurabilityUnsupported, match=r"appendfsync always|7\.4\.3"):
                    await transport.streams.check_durability(disk)
            server.command("CONFIG", "SET", "appendonly", "no")
            with pytest.raises(DurabilityUnsupported, match=r"appendonly yes|7\.4\.3"):
                await transport.streams.check_durability(disk)
            [answer] = await transport.streams.append(entries(stream), durability=disk)
            assert isinstance(answer, NotDurable)
            assert "does not wait for its disk" in str(answer)
        finally:
            await transport.close()
