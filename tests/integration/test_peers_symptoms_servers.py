"""What users of other systems meet depending on the server: entries deleted while pending, trimming, blocked reads.

On every kind of server. `peers_symptoms.toml` lists every symptom, and where it is shown.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from hyperbus import Event, consumer
from hyperbus.runtime.recovery.handover import HANDED_OVER, HandedOver
from hyperbus.signals import Claimed, EntryDeadLettered, Recovered, Trimmed, WorkerChanged
from hyperbus.transport import record_names
from hyperbus.transports.redis.transport import RedisTransport
from tests.recorder import Recorder, eventually
from tests.servers import Server
from tests.symptoms import a_bus, collects, command, deliver_to, length, publish, settled
from tests.unit.runtime.running import unique

# -- entries that are deleted while they are pending


async def test_a_deleted_entry_of_a_dead_worker_is_not_claimed_over_and_over(server: Server) -> None:
    """An entry that was deleted while pending was claimed 1,427 times: watermill-redisstream#38.

    For years the server kept such entries pending: redis#7021, #10198.
    """
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()
    async with a_bus(server, recorder) as bus:
        ids = await publish(bus, kind, *range(5))
        await deliver_to(bus, kind, "dead", 5)
        await command(server, "XDEL", f"events:{kind}", ids[0], ids[3])
        async with bus.running(collects(seen, kind)):
            await settled(bus, kind)
    assert sorted(seen) == [(1, 2), (2, 2), (4, 2)]
    assert [one.count for one in recorder.of(Claimed)] == [3]
    assert recorder.of(EntryDeadLettered) == []


async def test_a_deleted_entry_that_is_handed_to_a_worker_crashes_no_decoder(server: Server) -> None:
    """Clients crashed on the nil in place of its fields, or filled the log: redis-rb#1166, lettuce#3902,
    components-contrib#3184.
    """
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()
    stream = f"events:{kind}"
    async with a_bus(server, recorder) as bus:
        ids = await publish(bus, kind, *range(3))
        await deliver_to(bus, kind, "other", 3)
        await bus.transport.records.put(record_names.heartbeat("other"), b"{}", ttl=60)
        async with bus.running(collects(seen, kind)):
            name = (await recorder.wait_for_one(WorkerChanged)).consumer
            counts = [(one.encode(), 1) for one in ids]
            await bus.transport.streams.hand_over(stream, kind, "other", name, counts)
            await command(server, "XDEL", stream, ids[1])
            notice = msgspec.json.encode(HandedOver(name, (stream,)))
            await bus.transport.streams.append_notice(
                record_names.notices_key("events"), HANDED_OVER, notice, keep=1_000
            )
            await settled(bus, kind)
    assert [n for n, _ in seen] == [0, 2]
    assert sum(one.count for one in recorder.of(Recovered)) == 2
    assert recorder.of(EntryDeadLettered) == []


# -- trimming


async def test_what_every_group_has_acked_goes_and_what_one_has_not_stays(server: Server) -> None:
    """Acked entries were never deleted: redis#6941, safe-decoder-service#329, components-contrib#3100; to trim these
    and no others there was no command, redis#5774, and the one that came at last deleted nothing: redis#14656.
    """
    kind, witness, release = unique(), unique(), asyncio.Event()
    seen, recorder = list[tuple[int, int]](), Recorder()

    @consumer(group=f"{kind}-slow", types=[kind], batch=2_000)
    async def slow(events: list[Event]) -> None:
        await release.wait()

    async with a_bus(server, recorder, prefix=unique("p"), retain_age=0.05) as bus:
        for each in (kind, witness):
            await publish(bus, each, *range(2_000))
        async with bus.running(collects(seen, kind, types=[kind, witness], concurrency=100), slow):
            await settled(bus, kind)
            assert (await recorder.wait_for_one(Trimmed)).stream == f"{bus.prefix}:{witness}"
            assert await length(bus, kind) == 2_000, "the slow group holds it"
            release.set()
            async with asyncio.timeout(10):
                while await length(bus, kind) > 100 or await length(bus, witness) > 100:
                    await asyncio.sleep(0.02)


# -- blocked reads


async def test_a_blocked_read_ends_in_time_though_others_take_what_comes(server: Server) -> None:
    """Each entry that another consumer got began the wait of a blocked XREADGROUP anew: redis#12998.

    A read that takes longer than it may is taken for lost; so the server may not be late by much.
    """
    stream, group = f"events:{unique()}", "g"
    transport = RedisTransport(server.url, command_timeout=1.0)
    await transport.open()
    try:
        await transport.streams.create_groups([(stream, group, b"0-0")])
        taker, waiter = transport.open_reader(), transport.open_reader()
        taking = asyncio.create_task(taker.read_group(group, "taker", [stream], count=1, block=5.0))
        await eventually(lambda: blocked(server) == 1)
        began = time.monotonic()
        waiting = asyncio.create_task(waiter.read_group(group, "waiter", [stream], count=1, block=2.0))
        await eventually(lambda: blocked(server) == 2)
        await asyncio.sleep(1.6)
        await command(server, "XADD", stream, "*", "data", "1")
        assert len(await taking) == 1
        assert await waiting == []
        assert time.monotonic() - began < 2.0 + 1.0
    finally:
        await transport.close()


def blocked(server: Server) -> int:
    found: int = server.command("INFO", "clients")["blocked_clients"]
    return found
