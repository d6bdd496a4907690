"""How consumers of other systems stop, hang or spin when the server, the stream or the connection goes away.

Here they go on. `peers_symptoms.toml` lists every symptom, and where it is shown.
"""

from __future__ import annotations

import asyncio
import time

import pytest
import redis

from hyperbus import Event, consumer
from hyperbus.runtime.reading import group_reader as reader
from hyperbus.signals import ConnectionChanged, GroupRebuilt
from tests.chaos.proxy import Proxy
from tests.recorder import Recorder, eventually
from tests.servers import Server
from tests.symptoms import MOST_COMMANDS, a_bus, collects, command, commands_a_second, publish, settled, told
from tests.unit.runtime.running import body, unique

pytestmark = pytest.mark.one_server

# -- the stream, or its group, is gone


async def test_consuming_goes_on_after_redis_was_killed_and_came_back_empty(server: Server) -> None:
    """Consumers never recovered, and had to be restarted by hand.

    faststream#2611, dapr#4302, spring-data-redis#2833, opik#5525.
    """
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()
    with Server(server.binary) as own:
        async with a_bus(own, recorder) as bus, bus.running(collects(seen, kind)):
            await publish(bus, kind, 0)
            await settled(bus, kind)
            await asyncio.to_thread(own.kill)
            await recorder.wait_for_one(ConnectionChanged)
            await asyncio.to_thread(own.start)
            await publish(bus, kind, 1)
            await eventually(lambda: (1, 1) in seen)
            await settled(bus, kind)


async def test_a_flushed_server_brings_no_storm_of_commands_or_log_lines(server: Server) -> None:
    """NOGROUP was asked about again at once, for ever: faststream#3106, EggAI#203; with 30 GB of logs a day, or 600
    lines a second: components-contrib#3219, jac#7452.
    """
    kinds, seen, recorder = [unique() for _ in range(2)], list[tuple[int, int]](), Recorder()
    with Server(server.binary) as own:
        async with a_bus(own, recorder) as bus, bus.running(*(collects(seen, kind) for kind in kinds)):
            for kind in kinds:
                await publish(bus, kind, 0)
                await settled(bus, kind)
            before = len(told(recorder))
            await command(own, "FLUSHALL")
            assert await commands_a_second(own) < MOST_COMMANDS
            assert len(told(recorder)[before:]) <= 2 * len(kinds), told(recorder)[before:]
            for kind in kinds:
                await publish(bus, kind, 1)
            await eventually(lambda: seen.count((1, 1)) == len(kinds))


async def test_a_group_that_was_lost_neither_drops_what_came_meanwhile_nor_handles_all_again(server: Server) -> None:
    """Groups were made again at the end, and events dropped: jac#7489; or at 0, and everything came again: flightctl#2227.

    Elsewhere it was the silent end of consuming: redisson#7262.
    """
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()
    stream = f"events:{kind}"
    async with a_bus(server, recorder) as bus, bus.running(collects(seen, kind)):
        ids = await publish(bus, kind, *range(100))
        await settled(bus, kind)
        async with asyncio.timeout(10):
            while await bus.transport.streams.checkpoints([(stream, kind)]) != [ids[-1].encode()]:
                await asyncio.sleep(0.01)
        with redis.Redis(port=server.port) as client, client.pipeline(transaction=True) as transaction:
            transaction.execute_command("XGROUP", "DESTROY", stream, kind)
            transaction.execute_command("XADD", stream, "*", "data", body(100, kind))
            await asyncio.to_thread(transaction.execute)
        await eventually(lambda: (100, 1) in seen)
        await settled(bus, kind)
    assert seen == [(n, 1) for n in range(101)]
    assert len(recorder.of(GroupRebuilt)) == 1


async def test_a_stream_deleted_under_a_handler_is_read_again_once_it_is_back(server: Server) -> None:
    """The ack failed as the stream was gone, and when it was made again nobody read it: cookie-cutter#206,
    spring-data-redis#2532.
    """
    kind, seen, begun, release = unique(), list[int](), asyncio.Event(), asyncio.Event()

    @consumer(group=kind, types=[kind])
    async def handler(event: Event) -> None:
        begun.set()
        await release.wait()
        seen.append(event.data["n"])

    async with a_bus(server) as bus, bus.running(handler):
        await publish(bus, kind, 0)
        await begun.wait()
        await command(server, "DEL", f"events:{kind}")
        release.set()
        await eventually(lambda: seen == [0])
        await publish(bus, kind, 1)
        await eventually(lambda: seen == [0, 1])
        await settled(bus, kind)


# -- connections


def url_of(proxy: Proxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}/0"


async def test_connections_that_break_under_a_handler_cost_neither_its_work_nor_its_ack(server: Server) -> None:
    """A lost connection ended the worker, and with it the tasks that were running: taskiq-redis#65."""
    kind, ended, begun, release = unique(), list[int](), asyncio.Event(), asyncio.Event()

    @consumer(group=kind, types=[kind])
    async def handler(event: Event) -> None:
        begun.set()
        await release.wait()
        ended.append(event.data["n"])

    async with Proxy(server.port) as proxy, a_bus(server, url=url_of(proxy)) as bus:
        await publish(bus, kind, 0)
        async with bus.running(handler):
            await begun.wait()
            proxy.refuse()
            proxy.cut()
            release.set()
            await eventually(lambda: ended == [0])
            await proxy.heal()
            await publish(bus, kind, 1)
            await settled(bus, kind)
    assert ended == [0, 1]


async def test_a_read_blocks_for_longer_than_a_command_may_take(server: Server) -> None:
    """A socket timeout shorter than BLOCK broke every quiet read: docket#425, hopeit.engine#224, redis-py#3138."""
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()
    timeout = 0.3
    async with a_bus(server, recorder, command_timeout=timeout) as bus, bus.running(collects(seen, kind)):
        assert 3 * timeout < reader.BLOCK
        await asyncio.sleep(3 * timeout)
        await publish(bus, kind, 0)
        await eventually(lambda: seen == [(0, 1)])
    assert recorder.of(ConnectionChanged) == []


async def test_a_connection_that_fell_silent_holds_nobody_up_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a socket timeout, a connection that was dropped without a word hung the reclaimer or the reader for good.

    hopeit.engine#225, EggAI#244, redisson#5817.
    """
    monkeypatch.setattr(reader, "BLOCK", 0.2)
    kind, seen = unique(), list[tuple[int, int]]()
    async with Proxy(server.port) as proxy, a_bus(server, url=url_of(proxy), command_timeout=0.3) as bus:
        await publish(bus, kind, 0)
        async with bus.running(collects(seen, kind)):
            await settled(bus, kind)
            proxy.swallow()
            await proxy.heal()  # new connections work; the old ones stay silent
            await command(server, "XADD", f"events:{kind}", "*", "data", body(1, kind))
            await eventually(lambda: seen == [(0, 1), (1, 1)])


async def test_an_ack_lost_in_a_failover_brings_its_event_again(server: Server) -> None:
    """The replica that took over had not heard of the acks: redis#5433. Done twice, then, and never lost or stuck."""
    kind, first, second = unique(), list[tuple[int, int]](), list[tuple[int, int]]()
    with (
        Server(server.binary, arguments=["--repl-diskless-sync-delay", "0"]) as master,
        Server(server.binary, arguments=["--replicaof", f"127.0.0.1 {master.port}"]) as replica,
    ):
        begun, release = asyncio.Event(), asyncio.Event()

        @consumer(group=kind, types=[kind])
        async def handler(event: Event) -> None:
            begun.set()
            await release.wait()
            first.append((event.data["n"], 1))

        async with a_bus(master) as bus, bus.running(handler):
            await publish(bus, kind, 0)
            await begun.wait()
            await eventually(lambda: replica.command("EXISTS", f"events:{kind}"))
            await eventually(lambda: replica.command("XPENDING", f"events:{kind}", kind)["pending"] == 1)
            await command(replica, "REPLICAOF", "NO", "ONE")
            release.set()
            await settled(bus, kind)
        async with a_bus(replica) as bus, bus.running(collects(second, kind)):
            await eventually(lambda: second)
            assert second == [(0, 2)]
            await settled(bus, kind)
    assert first == [(0, 1)]


async def test_reads_that_were_cancelled_leave_nothing_to_the_next_one(server: Server) -> None:
    """A cancelled XREAD went back to the pool with its answer still to come: redis-py#2663, #2579, #2665."""
    kind, found = unique(), list[int]()
    async with a_bus(server) as bus:
        for _ in range(10):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await anext(aiter(bus.consume(kind, group=kind)))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await anext(aiter(bus.read(kind)))
        await publish(bus, kind, *range(20))
        async with asyncio.timeout(10):
            async for event in bus.consume(kind, group=kind):
                found.append(event.data["n"])
                if len(found) == 20:
                    break
    assert found == list(range(20))


async def connections(server: Server) -> int:
    found: int = (await command(server, "INFO", "clients"))["connected_clients"]
    return found


async def test_many_readers_that_wait_starve_nobody(server: Server) -> None:
    """Blocking reads used up the pool, and whoever wanted to publish waited or failed: redis-py#2517, aioredis#511, #1173.

    With 60 readers, reading took very long: redis#11048.
    """
    kind, groups, seen = unique(), [unique("g") for _ in range(60)], list[tuple[int, int]]()
    async with a_bus(server, heartbeat_ttl=5.0) as bus:
        before = await connections(server)
        async with bus.running(*(collects(seen, kind, group=group) for group in groups)):
            opened = await connections(server) - before
            began = time.monotonic()
            await publish(bus, kind, 0)
            took = time.monotonic() - began
            await eventually(lambda: len(seen) == 60)
    assert opened <= 60 + 5, "one each, and a few for all"
    assert took < 4.0
