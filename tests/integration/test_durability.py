"""`durability=` on real servers: a replica that is there, slow or gone; disks that can and cannot be waited for."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from hyperbus import Bus, Event, PublishFailed
from hyperbus.errors import DurabilityUnsupported, NotDurable
from hyperbus.settings import Settings
from tests.recorder import eventually
from tests.servers import Server, server_binaries
from tests.unit.runtime.running import unique

BINARIES = server_binaries()


@pytest.fixture(scope="module", params=list(BINARIES))
def binary(request: pytest.FixtureRequest) -> str:
    return BINARIES[request.param]


@pytest.fixture(scope="module")
def pair(binary: str) -> Iterator[tuple[Server, Server]]:
    """A server and its replica."""
    with (
        Server(binary, arguments=["--repl-diskless-sync-delay", "0"]) as master,
        Server(binary, arguments=["--replicaof", f"127.0.0.1 {master.port}"]) as replica,
    ):
        yield master, replica


def a_bus(server: Server, **settings: Any) -> Bus:
    return Bus(settings=Settings(url=server.url, prefix=unique("p"), **settings))


def an_event() -> Event:
    return Event(type="kept", data={"n": 1})


async def attached(master: Server) -> None:
    """Wait until the replica has caught up."""
    await eventually(lambda: master.command("WAIT", 1, 10) == 1, within=20.0)


async def test_what_returned_is_on_the_replica(pair: tuple[Server, Server]) -> None:
    """Plainly and once, one and many."""
    master, replica = pair
    await attached(master)
    async with a_bus(master) as bus:
        stream = f"{bus.prefix}:kept"
        for number, once in enumerate((False, True), start=1):
            await bus.publish(an_event(), durability="replica:1", once=once)
            assert replica.command("XLEN", stream) == number * 501 - 500
            await bus.publish_many([an_event() for _ in range(500)], durability="replica:1", once=once)
            assert replica.command("XLEN", stream) == number * 501


async def test_more_replicas_than_there_are_is_not_durable(pair: tuple[Server, Server]) -> None:
    """The event is stored, the error says as what; plain publishes are not held up by those that wait."""
    master, _ = pair
    await attached(master)
    async with a_bus(master, durability_timeout=1.0) as bus:
        waiting = asyncio.create_task(bus.publish(an_event(), durability="replica:2"))
        for _ in range(10):
            await bus.publish(an_event())
        assert not waiting.done()
        with pytest.raises(NotDurable, match="only 1 of 2 replicas") as one:
            await waiting
        with pytest.raises(PublishFailed, match="2 of 2 events stored"):
            await bus.publish_many([an_event(), an_event()], durability="replica:2", timeout=0.3)
        assert master.command("XLEN", f"{bus.prefix}:kept") == 13
        assert master.command("XRANGE", f"{bus.prefix}:kept", one.value.entry_id, one.value.entry_id)


async def test_a_replica_that_stands_still_is_not_waited_for_beyond_the_timeout(pair: tuple[Server, Server]) -> None:
    """And once it goes on, the same event published again is durable, and there once."""
    master, replica = pair
    await attached(master)
    async with a_bus(master) as bus:
        event = an_event()
        await bus.publish(an_event(), durability="replica:1")
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            with pytest.raises(NotDurable, match="only 0 of 1") as caught:
                await bus.publish(event, durability="replica:1", once=True, timeout=0.5)
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        assert await bus.publish(event, durability="replica:1", once=True) == caught.value.entry_id
        assert replica.command("XLEN", f"{bus.prefix}:kept") == 2


@pytest.mark.parametrize("fsync", ["always", "everysec", "no"])
async def test_disk_is_waited_for_where_the_answer_can_be_believed(binary: str, fsync: str) -> None:
    """Redis from 7.4.3 on, Valkey with `appendfsync always`; anything else is refused before anything is sent."""
    with Server(binary, appendonly=True, arguments=["--appendfsync", fsync]) as own:
        info = own.command("INFO", "server")
        valkey = "valkey_version" in info
        version = tuple(map(int, re.findall(r"\d+", str(info["redis_version"]))[:3]))
        believed = fsync == "always" if valkey else version >= (7, 4, 3)
        async with a_bus(own) as bus:
            stream = f"{bus.prefix}:kept"
            if not believed:
                with pytest.raises(DurabilityUnsupported, match=r"Valkey|7\.4\.3"):
                    await bus.publish(an_event(), durability="disk")
                with pytest.raises(DurabilityUnsupported):
                    await bus.publish_many([an_event()], durability="disk", once=True)
                assert own.command("EXISTS", stream) == 0
                return
            if fsync == "no":  # nobody syncs in time: the system does when it likes
                with pytest.raises(NotDurable, match="not on the disk"):
                    await bus.publish(an_event(), durability="disk", timeout=0.5)
                return
            await bus.publish(an_event(), durability="disk")
            await bus.publish_many([an_event() for _ in range(1_200)], durability="disk", once=True)
            own.kill()
            own.start()
            assert own.command("XLEN", stream) == 1_201


async def test_a_server_without_an_append_only_file_has_no_disk_to_wait_for(binary: str) -> None:
    """It says what it takes."""
    with Server(binary) as own:
        async with a_bus(own) as bus:
            with pytest.raises(DurabilityUnsupported, match=r"appendonly yes|7\.4\.3"):
                await bus.publish(an_event(), durability="disk")
