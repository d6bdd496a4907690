"""What each trouble of a server does to publishers and workers, and that they find back by themselves.

The rows of the table in docs/operations.md, "When the server has trouble", in its order.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from hyperbus import Backoff, Bus, Event, Reject, consumer
from hyperbus.errors import BusUnavailable, HyperbusError, PublishRefusedError
from hyperbus.runtime.group import stream_set
from hyperbus.settings import Settings
from hyperbus.signals import (
    Acknowledged,
    Claimed,
    ConnectionChanged,
    EntryDeadLettered,
    GroupRebuilt,
    Handled,
    Published,
    PublishErred,
)
from tests.chaos.proxy import Proxy
from tests.commands import wait_for
from tests.recorder import Recorder, eventually
from tests.servers import Server, free_port
from tests.unit.runtime.running import body, unique

#: What a worker and its process may ask of a broken server in a second, the first short pauses included; a hot loop
#: asks thousands.
MOST_COMMANDS = 100
#: What may be announced, and so logged, of one trouble.
MOST_TOLD = 8
#: How soon after the trouble everything goes on.
BACK = 10.0


class Place:
    """A server of the test's own, a bus with one worker on it, and what that has handled."""

    def __init__(self, server: Server, bus: Bus, recorder: Recorder) -> None:
        self.server = server
        self.bus = bus
        self.recorder = recorder
        self.kind = unique()
        self.stream = f"events:{self.kind}"
        self.seen: list[int] = []

        @consumer(group="g", types=[self.kind], concurrency=4, retry=Backoff(initial=0.05, factor=1, tries=3))
        async def handler(event: Event) -> None:
            self.seen.append(event.data["n"])
            if event.data["n"] < 0:
                raise Reject("no such number")

        self.handler = handler

    async def command(self, *words: Any) -> Any:
        return await asyncio.to_thread(self.server.command, *words)

    async def publish(self, *numbers: int, timeout: float = 10.0) -> None:
        for n in numbers:
            await self.bus.publish(Event(type=self.kind, data={"n": n}), timeout=timeout)

    async def handled(self, *numbers: int) -> None:
        """Wait until all of these were handled."""
        await eventually(lambda: set(numbers) <= set(self.seen), within=BACK)

    async def settled(self) -> None:
        """Wait until everything was delivered and acked."""
        async with asyncio.timeout(BACK):
            while True:
                (group,) = await self.command("XINFO", "GROUPS", self.stream) or [None]
                if group and (group[b"pending"], group[b"lag"]) == (0, 0):
                    return
                await asyncio.sleep(0.02)

    async def saved(self) -> bytes:
        """Wait until the group's checkpoint is the last entry; return it."""
        (last,) = await self.bus.transport.streams.last_ids([self.stream])
        async with asyncio.timeout(BACK):
            while await self.bus.transport.streams.checkpoints([(self.stream, "g")]) != [last]:
                await asyncio.sleep(0.02)
        return last

    async def stays_calm(self, seconds: float = 2.0) -> None:
        """Look on while it is broken: few commands, few words."""
        told, asked, started = len(self._told()), await self._asked(), time.monotonic()
        await asyncio.sleep(seconds)
        rate = (await self._asked() - asked) / (time.monotonic() - started)
        assert rate < MOST_COMMANDS, f"{rate:.0f} commands a second"
        assert len(self._told()) - told <= MOST_TOLD, self._told()[told:]

    def _told(self) -> list[Any]:
        """Return what was announced that is worth a line in the log."""
        counts = (Published, PublishErred, Handled, Acknowledged)
        return [signal for signal in self.recorder.signals if not isinstance(signal, counts)]

    async def _asked(self) -> int:
        """Return how many commands the server was asked, those that it refused included; not what scripts did."""
        stats = await self.command("INFO", "commandstats")
        within = {f"cmdstat_{word}" for word in ("get", "set", "persist")}
        return sum(line["calls"] + line.get("rejected_calls", 0) for name, line in stats.items() if name not in within)


@asynccontextmanager
async def place(server: Server, *, url: str | None = None, **settings: Any) -> AsyncGenerator[Place]:
    """Run one worker on a server until the end of the test."""
    recorder = Recorder()
    chosen = {"command_timeout": 2.0, **settings}
    async with Bus(settings=Settings(url=url or server.url, **chosen), listeners=[recorder]) as bus:
        here = Place(server, bus, recorder)
        async with bus.running(here.handler):
            await here.publish(0)
            await here.handled(0)
            yield here


def connections(recorder: Recorder) -> list[bool]:
    """Return how the reader's connection went: False for lost, True for found again."""
    return [told.connected for told in recorder.of(ConnectionChanged) if told.part == "reader of g"]


# -- NOGROUP, UNBLOCKED: the group or the stream is gone


@pytest.mark.parametrize("knows", ["server", "worker"])
async def test_a_destroyed_group_goes_on_after_the_highest_checkpoint(server: Server, knows: str) -> None:
    """What the server has saved, or what the worker remembers; what may come again is bounded, and counted."""
    with Server(server.binary) as own:
        async with place(own) as here:
            await here.publish(*range(1, 50))
            await here.handled(*range(50))
            checkpoint = await here.saved()
            await asyncio.sleep(1.3)  # every worker has looked at it once more
            await here.publish(*range(50, 60))
            await here.handled(*range(60))
            if knows == "worker":
                await here.command("DEL", f"{{{here.stream}}}:checkpoint:g")
            with redis.Redis(port=own.port) as client, client.pipeline(transaction=True) as transaction:
                transaction.execute_command("XGROUP", "DESTROY", here.stream, "g")
                transaction.execute_command("XADD", here.stream, "*", "data", body(60, here.kind))
                await asyncio.to_thread(transaction.execute)
            await here.handled(60)
            rebuilt = await here.recorder.wait_for_one(GroupRebuilt)
            assert rebuilt.entry_id >= checkpoint.decode()
            assert rebuilt.replayed is not None
            await here.settled()
    repeated = [n for n in range(61) if here.seen.count(n) > 1]
    assert set(repeated) <= set(range(50, 61)), "only what came after the checkpoint"
    assert len(repeated) <= rebuilt.replayed <= 11
    assert len(here.recorder.of(GroupRebuilt)) == 1


@pytest.mark.parametrize("how", ["DEL", "FLUSHALL", "RENAME", "expiry"])
async def test_a_stream_that_is_gone_is_read_from_its_first_entry_when_it_is_back(server: Server, how: str) -> None:
    """Also when its ids are lower than before, and when it was back before anybody noticed; never from its end."""
    with Server(server.binary) as own:
        async with place(own) as here:
            await here.saved()
            words: dict[str, list[Any]] = {
                "DEL": ["DEL", here.stream],
                "FLUSHALL": ["FLUSHALL"],
                "RENAME": ["RENAME", here.stream, "elsewhere"],
                "expiry": ["PEXPIRE", here.stream, "0"],
            }
            with redis.Redis(port=own.port) as client, client.pipeline(transaction=True) as transaction:
                transaction.execute_command(*words[how])
                for n in (1, 2):
                    transaction.execute_command("XADD", here.stream, f"{n}-0", "data", body(n, here.kind))
                await asyncio.to_thread(transaction.execute)
            await here.handled(1, 2)
            await here.command(*words[how])
            await asyncio.sleep(0.3)
            await here.publish(3)
            await here.handled(3)
            await here.settled()
    assert here.recorder.of(GroupRebuilt)[0].entry_id == "0-0"
    assert here.seen == [0, 1, 2, 3]


async def test_a_group_that_cannot_be_made_again_is_tried_for_calmly(server: Server) -> None:
    """Each reader that is told that there is no group waits longer before it asks again."""
    with Server(server.binary) as own:
        async with place(own) as here:
            await here.command("ACL", "SETUSER", "default", "-xgroup")
            await here.command("XADD", here.stream, "*", "data", body(1, here.kind))
            await here.handled(1)
            with redis.Redis(port=own.port) as client:
                client.execute_command("ACL", "SETUSER", "default", "-del")
                await asyncio.to_thread(client.rename, here.stream, "elsewhere")
            await here.stays_calm()
            await here.command("ACL", "SETUSER", "default", "+@all")
            await here.command("RENAME", "elsewhere", here.stream)
            await here.publish(2)
            await here.handled(2)


# -- WRONGTYPE


async def test_a_key_that_became_a_string_is_left_alone_and_taken_up_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calm meanwhile; publishers are told; when the key is a stream again it is read from its first entry."""
    monkeypatch.setattr(stream_set, "SET_ASIDE", 1.0)
    with Server(server.binary) as own:
        async with place(own) as here:
            await here.command("SET", here.stream, "no stream")
            told = await here.recorder.wait_for_one(ConnectionChanged)
            assert (told.part, told.connected) == (f"stream {here.stream}", False)
            with pytest.raises(PublishRefusedError, match="WRONGTYPE"):
                await here.publish(1)
            await here.stays_calm()
            await here.command("DEL", here.stream)
            await here.publish(1)
            await here.handled(1)
            await here.settled()


# -- connections


async def test_killed_connections_are_made_again(server: Server) -> None:
    """All of them, five times under load: every event is handled."""
    with Server(server.binary) as own:
        async with place(own) as here:
            for number in range(5):
                await here.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await here.publish(*range(number * 10 + 1, number * 10 + 11))
            await here.handled(*range(51))
            await here.settled()
    assert here.recorder.of(GroupRebuilt) == []


@pytest.mark.parametrize("form", ["TIMEOUT", "ERROR"])
async def test_a_read_that_somebody_unblocks_is_asked_again(server: Server, form: str) -> None:
    """Nothing was lost, so nothing is told."""
    with Server(server.binary) as own:
        async with place(own) as here:
            for n in range(1, 6):
                with redis.Redis(port=own.port) as client:
                    for one in client.client_list():
                        if one["cmd"] == "xreadgroup":
                            client.execute_command("CLIENT", "UNBLOCK", one["id"], form)
                await here.publish(n)
                await here.handled(n)
            await here.settled()
    assert here.recorder.of(ConnectionChanged) == here.recorder.of(GroupRebuilt) == []


async def test_a_server_that_refuses_connections_is_waited_for(server: Server) -> None:
    """Three seconds: publishes wait and arrive, the reader tells once that it lost the server and once that it is back."""
    with Server(server.binary) as own:
        async with Proxy(own.port) as proxy, place(own, url=f"redis://127.0.0.1:{proxy.port}/0") as here:
            proxy.refuse()
            proxy.cut()
            await here.recorder.wait_for(lambda _: connections(here.recorder) == [False], within=BACK)
            publishing = asyncio.create_task(here.publish(1))
            await here.stays_calm(3.0)
            await proxy.heal()
            await publishing
            await here.handled(1)
            await here.settled()
            assert connections(here.recorder) == [False, True]


async def test_a_connection_that_went_silent_is_given_up(server: Server) -> None:
    """Half-open: no bytes and no end. The command timeout finds it; a publish that was not answered is told as uncertain."""
    with Server(server.binary) as own:
        async with Proxy(own.port) as proxy, place(own, url=f"redis://127.0.0.1:{proxy.port}/0") as here:
            proxy.swallow()
            with pytest.raises(HyperbusError):
                await here.publish(1, timeout=2.0)
            await here.recorder.wait_for(lambda _: connections(here.recorder) == [False], within=BACK)
            await here.stays_calm(1.0)
            await proxy.heal()
            await here.publish(2)
            await here.handled(2)
            await here.settled()
            assert connections(here.recorder) == [False, True]


async def test_an_answer_that_was_lost_is_found_again(server: Server) -> None:
    """The server delivered, the connection broke: what it delivered is asked for, and handled once."""
    with Server(server.binary) as own:
        async with Proxy(own.port) as proxy, place(own, url=f"redis://127.0.0.1:{proxy.port}/0") as here:
            for n in range(1, 6):
                proxy.drop_replies()
                await here.command("XADD", here.stream, "*", "data", body(n, here.kind))
                await here.handled(n)
            await here.settled()
    assert here.seen.count(5) == 1


# -- LOADING, BUSY, READONLY, MASTERDOWN, MISCONF: it is there and cannot serve


async def test_a_restart_and_the_loading_after_it_are_waited_for(server: Server) -> None:
    """Killed, started, and busy for seconds with its append-only file: nothing is lost."""
    options = (
        "--key-load-delay",
        "300",
        "--aof-use-rdb-preamble",
        "no",
        "--loading-process-events-interval-bytes",
        "1024",
    )
    with Server(server.binary, appendonly=True, arguments=options) as own:
        async with place(own) as here:
            await here.publish(*range(1, 20))
            await asyncio.to_thread(_write_much, own, 5_000)
            own.kill()
            await here.recorder.wait_for(lambda _: connections(here.recorder) == [False], within=BACK)
            publishing = asyncio.create_task(here.publish(20, timeout=20))
            loading = asyncio.create_task(asyncio.to_thread(own.start))
            assert await asyncio.to_thread(wait_for, lambda: _is_loading(own) or loading.done())
            await loading
            await publishing
            await here.handled(*range(21))
            await here.settled()
            told = [change.error for change in here.recorder.of(ConnectionChanged) if not change.connected]
    assert len(told) <= MOST_TOLD
    assert here.recorder.of(GroupRebuilt) == []


def _write_much(server: Server, count: int) -> None:
    with redis.Redis(port=server.port) as client, client.pipeline(transaction=False) as pipeline:
        for n in range(count):
            pipeline.set(f"key {n}", n)
        pipeline.execute()


def _is_loading(server: Server) -> bool:
    try:
        with redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as client:
            return bool(client.info("persistence")["loading"])
    except redis.ConnectionError:
        return False


async def test_a_server_that_runs_a_long_script_is_waited_for(server: Server) -> None:
    """BUSY: publishes wait, and everything goes on when the script has ended."""
    with Server(server.binary, arguments=("--busy-reply-threshold", "100")) as own:
        async with place(own) as here:
            with redis.Redis(port=own.port, socket_timeout=30) as client:
                endless = asyncio.create_task(asyncio.to_thread(_swallow, client, "EVAL", "while true do end", 0))
                await asyncio.sleep(0.3)
                publishing = asyncio.create_task(here.publish(1))
                await asyncio.sleep(1.0)
                await here.command("SCRIPT", "KILL")
                await endless
            await publishing
            await here.handled(1)
            await here.settled()


def _swallow(client: redis.Redis, *words: Any) -> None:
    try:
        client.execute_command(*words)
    except redis.RedisError:
        return


@pytest.mark.parametrize("stale", ["yes", "no"], ids=["READONLY", "MASTERDOWN"])
async def test_a_demoted_server_is_waited_for(server: Server, stale: str) -> None:
    """A replica takes no writes, and perhaps no reads: publishes wait, workers ask now and then, and go on afterwards."""
    with Server(server.binary, arguments=("--replica-serve-stale-data", stale)) as own:
        # it answers at once, whatever it says: a busy machine is not to be taken for a lost connection
        async with place(own, connect_timeout=5.0, command_timeout=5.0) as here:
            await here.command("REPLICAOF", "127.0.0.1", free_port())
            await here.recorder.wait_for(lambda _: connections(here.recorder) == [False], within=BACK)
            publishing = asyncio.create_task(here.publish(1, timeout=20))
            await here.stays_calm()
            assert not publishing.done()
            await here.command("REPLICAOF", "NO", "ONE")
            await publishing
            await here.handled(1)
            await here.settled()
            assert connections(here.recorder) == [False, True]


async def test_a_server_that_cannot_save_is_told_of_and_waited_for(server: Server) -> None:
    """MISCONF: publishes are refused with the reason, the reader says why it stands still, and goes on afterwards."""
    with Server(server.binary) as own:
        async with place(own) as here:
            await here.command("CONFIG", "SET", "save", "3600 100000")
            await asyncio.to_thread(shutil.rmtree, own.folder)  # where it would be saved
            await here.command("BGSAVE")
            async with asyncio.timeout(BACK):
                while (await here.command("INFO", "persistence"))["rdb_last_bgsave_status"] != "err":
                    await asyncio.sleep(0.05)
            with pytest.raises(PublishRefusedError, match="MISCONF"):
                await here.publish(1)
            await here.recorder.wait_for(lambda _: False in connections(here.recorder), within=BACK)
            await here.stays_calm()
            await here.command("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
            await here.publish(1)
            await here.handled(1)
            await here.settled()
            assert connections(here.recorder) == [False, True]


async def test_a_changed_password_is_asked_for_until_it_fits_again(server: Server) -> None:
    """NOAUTH: nothing gets through, calmly, and everything goes on with the right password."""
    with Server(server.binary) as own:
        async with place(own) as here:
            await here.command("CONFIG", "SET", "requirepass", "another")
            with redis.Redis(port=own.port, password="another") as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await here.recorder.wait_for(lambda _: connections(here.recorder) == [False], within=BACK)
                publishing = asyncio.create_task(here.publish(1))
                await asyncio.sleep(1.0)
                client.config_set("requirepass", "")
            await publishing
            await here.handled(1)
            await here.settled()
            assert connections(here.recorder) == [False, False, True], "that it is lost, why, and that it is back"


async def test_scripts_that_the_server_forgot_are_sent_again(server: Server) -> None:
    """NOSCRIPT: nobody notices."""
    with Server(server.binary) as own:
        async with place(own) as here:
            await here.command("SCRIPT", "FLUSH")
            await here.publish(1, -1)
            await here.recorder.wait_for_one(EntryDeadLettered)
            await here.settled()
            await here.saved()
    assert here.recorder.of(ConnectionChanged) == []


# -- OOM


@asynccontextmanager
async def full(here: Place) -> AsyncGenerator[None]:
    """Let the server be out of memory meanwhile."""
    await here.command("CONFIG", "SET", "maxmemory", 1)
    try:
        yield
    finally:
        await here.command("CONFIG", "SET", "maxmemory", 0)


async def test_a_full_server_takes_no_events_and_workers_go_on(server: Server) -> None:
    """Publishes are refused at once; what is there is handled and acked; dead letters wait for memory, pending."""
    with Server(server.binary) as own:
        async with place(own, prefetch=1) as here:
            await here.command("CLIENT", "PAUSE", 300, "ALL")
            publishing = asyncio.create_task(here.publish(1, -1, 2, 3))
            await publishing
            await here.handled(1, 2, 3)
            await here.settled()
            async with full(here):
                with pytest.raises(PublishRefusedError, match="maxmemory"):
                    await here.publish(4)
                await here.stays_calm()
                assert here.bus is not None
            await here.publish(5)
            await here.handled(5)
            await here.settled()
    assert here.recorder.of(Claimed) == here.recorder.of(GroupRebuilt) == []


async def test_dead_letters_wait_for_memory(server: Server) -> None:
    """The entry stays pending until the dead letter is written: never acked without it, never written twice."""
    with Server(server.binary) as own:
        async with place(own) as here:
            await here.command("XADD", here.stream, "*", "data", body(1, here.kind))
            await here.handled(1)
            await here.settled()
            with redis.Redis(port=own.port) as client, client.pipeline(transaction=True) as transaction:
                transaction.execute_command("XADD", here.stream, "*", "data", body(-1, here.kind))
                transaction.execute_command("CONFIG", "SET", "maxmemory", 1)
                await asyncio.to_thread(transaction.execute)
            await here.handled(-1)
            await here.stays_calm()
            streams = here.bus.transport.streams
            written = await streams.dead_letters(here.stream, "g")
            pending = await streams.pending(here.stream, "g")
            assert len(written) + len(pending) == 1
            await here.command("CONFIG", "SET", "maxmemory", 0)
            await here.recorder.wait_for_one(EntryDeadLettered, within=BACK)
            await here.settled()
            assert len(await streams.dead_letters(here.stream, "g")) == 1


async def test_workers_start_and_take_over_on_a_full_server(server: Server) -> None:
    """It is they who make room: heartbeats, groups and the right to sweep need none to speak of."""
    with Server(server.binary) as own:
        async with place(own) as here:
            kind, streams = unique(), here.bus.transport.streams
            await here.bus.publish_many([Event(type=kind, data={"n": n}) for n in range(10)])
            await streams.create_groups([(f"events:{kind}", "h", b"0-0")])
            dead = here.bus.transport.open_reader()
            await dead.read_group("h", "dead", [f"events:{kind}"], count=5, block=0)
            await dead.close()
            seen: list[int] = []

            @consumer(group="h", types=[kind, f"{kind}.new"])
            async def handler(event: Event) -> None:
                seen.append(event.data["n"])

            async with full(here):
                recorder = Recorder()
                settings = Settings(url=own.url, heartbeat_ttl=0.6)
                async with Bus(settings=settings, listeners=[recorder]) as bus, bus.running(handler):
                    await eventually(lambda: set(seen) == set(range(10)), within=BACK)
                    await recorder.wait_for(
                        lambda _: sum(told.count for told in recorder.of(Acknowledged)) == 10, within=BACK
                    )
            assert sorted(seen) == list(range(10))


async def test_a_lost_group_is_made_again_on_a_full_server(server: Server) -> None:
    """After the checkpoint, which was saved on a full server too."""
    with Server(server.binary) as own:
        async with place(own) as here:
            async with full(here):
                checkpoint = await here.saved()
                await here.command("XGROUP", "DESTROY", here.stream, "g")
                rebuilt = await here.recorder.wait_for_one(GroupRebuilt)
                assert rebuilt.entry_id == checkpoint.decode()
            await here.publish(1)
            await here.handled(1)
    assert here.seen == [0, 1]


# -- nobody waits for ever


async def test_a_publish_ends_in_time_whatever_the_server_does(server: Server) -> None:
    """Stopped dead, it answers nobody: the publish says so within its time, and so does the next."""
    troubles: list[Callable[[Server], None]] = [lambda own: os.kill(own.pid, 19), lambda own: own.kill()]
    for trouble in troubles:
        with Server(server.binary) as own:
            async with Bus(settings=Settings(url=own.url, connect_timeout=1.0, command_timeout=1.0)) as bus:
                await bus.publish(Event(type=unique(), data={}))
                trouble(own)
                for _ in range(2):
                    started = time.monotonic()
                    with pytest.raises(HyperbusError):
                        await bus.publish(Event(type=unique(), data={}), timeout=1.5)
                    assert time.monotonic() - started < 10
            if own._process is not None:
                os.kill(own.pid, 18)


def test_every_row_of_the_table_names_its_tests() -> None:
    """The table says what is done about each error, and which test shows it."""
    from tests.commands import ROOT

    text = (ROOT / "docs" / "operations.md").read_text()
    _, _, table = text.partition("## When the server has trouble")
    for word in ("NOGROUP", "UNBLOCKED", "WRONGTYPE", "LOADING", "BUSY", "READONLY", "MASTERDOWN", "MISCONF", "OOM"):
        assert f"`{word}`" in table, word
    assert BusUnavailable.__name__ in table
