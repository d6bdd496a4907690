"""How users of other systems lose what is pending, or get it twice; here it does not happen.

`peers_symptoms.toml` lists every symptom, and where it is shown.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hyperbus import Backoff, Bus, Delivery, Event, Retry, consumer
from hyperbus.runtime.coordination.lease import Lease
from hyperbus.runtime.recovery import reclaimer
from hyperbus.signals import Acknowledged, Claimed, EntryDeadLettered, WorkerChanged
from hyperbus.transport import record_names
from tests.commands import environment
from tests.recorder import Recorder, eventually
from tests.servers import Server
from tests.symptoms import (
    MOST_COMMANDS,
    a_bus,
    collects,
    command,
    commands_a_second,
    deliver_to,
    pending,
    publish,
    settled,
    two_workers,
)
from tests.unit.runtime.running import unique

pytestmark = pytest.mark.one_server

# -- pending entries that nobody takes up


async def test_one_consumer_reads_what_is_new_and_claims_what_is_pending(server: Server) -> None:
    """Reading and claiming excluded each other, or nothing claimed at all, so users polled or ran two consumers.

    faststream#3003, faststream#2678, connect#2662, redisson#5271, spring-data-redis#3201.
    """
    kind, seen = unique(), list[tuple[int, int]]()
    async with a_bus(server) as bus:
        await publish(bus, kind, 0, 1, 2)
        await deliver_to(bus, kind, "dead", 2)
        async with bus.running(collects(seen, kind)):
            await eventually(lambda: len(seen) == 3)
            await publish(bus, kind, 3)
            await eventually(lambda: len(seen) == 4)
            await settled(bus, kind)
    assert sorted(seen) == [(0, 2), (1, 2), (2, 1), (3, 1)]


async def test_a_failed_event_is_neither_acked_and_lost_nor_left_pending_for_ever(server: Server) -> None:
    """A handler's error left the entry pending with nobody to look at it again (EggAI#189), or acked it (EggAI#178)."""
    kind, held = unique(), list[tuple[int, int]]()

    @consumer(group=kind, types=[kind], retry=Backoff(initial=0.05))
    async def handler(event: Event, delivery: Delivery) -> None:
        held.append((delivery.tries, sum((await pending(bus, kind)).values())))
        if delivery.tries < 3:
            raise ValueError

    async with a_bus(server) as bus, bus.running(handler):
        await publish(bus, kind, 0)
        await eventually(lambda: len(held) == 3)
        await settled(bus, kind)
    assert held == [(1, 1), (2, 1), (3, 1)]


async def test_retries_and_dead_letters_work_under_a_prefix_of_ones_own(server: Server) -> None:
    """Two parts spelled the namespace differently, and whoever set one had neither retries nor a DLQ: EggAI#261."""
    kind, tries, recorder = unique(), list[int](), Recorder()

    @consumer(group=kind, types=[kind], retry=Backoff(initial=0.05, tries=2))
    async def handler(event: Event, delivery: Delivery) -> None:
        tries.append(delivery.tries)
        raise ValueError

    async with a_bus(server, recorder, prefix="tenant-7") as bus, bus.running(handler):
        await publish(bus, kind, 0)
        await recorder.wait_for_one(EntryDeadLettered)
        await settled(bus, kind)
        assert await command(server, "XLEN", f"{{tenant-7:{kind}}}:dead:{kind}") == 1
    assert tries == [1, 2]


HOLDS = """
import asyncio, sys
from hyperbus import Bus, Event, consumer
from hyperbus.settings import Settings

url, kind = sys.argv[1:]

@consumer(group=kind, types=[kind])
async def handler(event: Event) -> None:
    print("begun", flush=True)
    await asyncio.Event().wait()

async def main():
    async with Bus(settings=Settings(url=url, heartbeat_ttl=0.4)) as bus, bus.running(handler):
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_sweeper_that_was_killed_does_not_end_recovery_for_all(server: Server, tmp_path: Path) -> None:
    """The lock around claiming had no end, so that one SIGKILL while it was held was the last claim: taskiq-redis#131."""
    kind, seen = unique(), list[tuple[int, int]]()
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDS, server.url, kind, stdout=asyncio.subprocess.PIPE, env=environment(), cwd=tmp_path
    )
    assert program.stdout is not None
    try:
        async with asyncio.timeout(20), a_bus(server) as bus:
            await publish(bus, kind, 0)
            assert await program.stdout.readline() == b"begun\n"
            while not any(await bus.transport.records.get([record_names.lease(record_names.sweep_lease(kind))])):
                await asyncio.sleep(0.01)
            program.kill()
            async with bus.running(collects(seen, kind)):
                await eventually(lambda: seen == [(0, 2)])
    finally:
        if program.returncode is None:
            program.kill()
        await program.wait()


async def test_an_event_in_hand_when_its_pod_died_is_handled_though_nothing_is_retried(server: Server) -> None:
    """What had been read lay in memory, and with redelivery switched off it was lost with its pod: components-contrib#4174.

    How to come back to it was a question that users had to ask: redis-py#2937.
    """
    kind, seen = unique(), list[tuple[int, int]]()
    async with a_bus(server) as bus:
        await publish(bus, kind, 0)
        await deliver_to(bus, kind, "the-pod-before", 1)
        async with bus.running(collects(seen, kind, retry=Backoff(tries=1))):
            await eventually(lambda: seen == [(0, 2)])
            await settled(bus, kind)
        assert await bus.transport.streams.dead_letters(f"events:{kind}", kind) == []


async def test_all_that_a_dead_worker_held_comes_back_at_once_even_behind_what_a_live_one_holds(server: Server) -> None:
    """Each sweep began at the first pending entry and never got past its window: docket#467.

    Or it took one entry an interval: symfony#49023.
    """
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()
    async with a_bus(server, recorder) as bus:
        await publish(bus, kind, *range(750))
        await deliver_to(bus, kind, "live", 350)
        await deliver_to(bus, kind, "dead", 400)
        await bus.transport.records.put(record_names.heartbeat("live"), b"{}", ttl=60)
        async with bus.running(collects(seen, kind, concurrency=50)):
            await recorder.wait_for_one(Claimed)
            await eventually(lambda: len(seen) == 400, within=10 * reclaimer.SWEEP)
            await recorder.wait_for(lambda _: sum(ack.count for ack in recorder.of(Acknowledged)) == 400)
            assert await pending(bus, kind) == {"live": 350}
    assert sorted(seen) == [(n, 2) for n in range(350, 750)]


async def test_looking_for_the_dead_goes_on_and_does_not_hammer_the_server(server: Server) -> None:
    """Claiming never ran, and once it did it ran in a tight loop: faststream#2628."""
    kind, seen = unique(), list[tuple[int, int]]()
    with Server(server.binary) as own:
        async with a_bus(own) as bus, a_bus(own) as other:
            await publish(bus, kind, 0)
            await deliver_to(bus, kind, "live", 1)
            await bus.transport.records.put(record_names.heartbeat("live"), b"{}", ttl=60)
            async with bus.running(collects(seen, kind)), other.running(collects(seen, kind)):
                assert await commands_a_second(own) < MOST_COMMANDS
                assert seen == []
                await bus.transport.records.delete([record_names.heartbeat("live")])
                await eventually(lambda: seen == [(0, 2)])


# -- the same event twice


async def test_workers_that_see_the_same_death_do_not_both_get_its_events(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking and locking were two steps, and a task ran on two workers: taskiq-redis#123.

    That claims of one entry may race was misunderstood: redis#13956. Here no lock is needed for that.
    """

    async def held(_: Lease) -> bool:
        return True

    monkeypatch.setattr(Lease, "hold", held)
    monkeypatch.setattr(reclaimer, "SWEEP", 0.005)
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()
    async with a_bus(server, recorder) as a, a_bus(server, recorder) as b, a_bus(server, recorder) as c:
        await publish(a, kind, *range(900))
        await deliver_to(a, kind, "dead", 500)
        await deliver_to(a, kind, "dead", 400)
        declared = [collects(seen, kind) for _ in range(3)]
        async with a.running(declared[0]), b.running(declared[1]), c.running(declared[2]):
            await eventually(lambda: len(seen) >= 900)
            await settled(a, kind)
    assert sorted(seen) == [(n, 2) for n in range(900)]


async def test_long_tasks_and_what_waits_behind_them_are_not_delivered_again(server: Server) -> None:
    """Whatever took longer than the idle time ran again: taskiq-redis#101, diracx#908.

    So did what only waited in a buffer, components-contrib#4599, or what was in flight with the worker that reclaimed,
    mastra#23697.
    """
    kind, seen, recorder, ttl = unique(), list[tuple[int, int]](), Recorder(), 0.25

    @consumer(group=kind, types=[kind])
    async def takes_long(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))
        await asyncio.sleep(2 * ttl)

    # with little room, so that neither of them takes all
    async with two_workers(server, kind, takes_long, recorder, heartbeat_ttl=ttl, prefetch=3) as (bus, count):
        await settled(bus, kind)
    assert sorted(seen) == [(n, 1) for n in range(count)]
    assert recorder.of(Claimed) == []


async def test_a_handler_is_told_which_entry_it_holds(server: Server) -> None:
    """Tasks did not know their entry, so nobody could extend its lease by hand: taskiq-redis#86. Here nobody has to."""
    kind, told = unique(), list[Any]()

    @consumer(group=kind, types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        told.append((delivery.entry_id, delivery.stream, delivery.group, {delivery.consumer: 1}))
        told.append(await pending(bus, kind))

    async with a_bus(server) as bus, bus.running(handler):
        (entry_id,) = await publish(bus, kind, 0)
        await settled(bus, kind)
    assert told[0] == (entry_id, f"events:{kind}", kind, told[1])


async def test_a_redelivered_event_does_not_run_beside_another_of_its_key(server: Server) -> None:
    """After a redelivery two tasks with one key ran at once: docket#245."""
    kind, running, most, order = unique(), Counter[str](), 0, list[int]()

    @consumer(group=kind, types=[kind], concurrency=10, order_by="workflow_id")
    async def handler(event: Event) -> None:
        nonlocal most
        running["w"] += 1
        most = max(most, running["w"])
        order.append(event.data["n"])
        await asyncio.sleep(0.01)
        running["w"] -= 1

    async with a_bus(server) as bus:
        await publish(bus, kind, 0, 1, workflow_id="w")
        await deliver_to(bus, kind, "dead", 2)
        async with bus.running(handler):
            await publish(bus, kind, 2, 3, workflow_id="w")
            await eventually(lambda: len(order) == 4)
            await settled(bus, kind)
    assert (most, order) == (1, [0, 1, 2, 3])


async def test_an_event_that_waits_for_its_retry_is_not_redelivered_meanwhile(server: Server) -> None:
    """A retry was scheduled before the first delivery was acked, which could be reclaimed, and both ran: docket#248."""
    kind, tries, recorder = unique(), list[int](), Recorder()

    @consumer(group=kind, types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        tries.append(delivery.tries)
        if delivery.tries == 1:
            raise Retry(after=1.2)

    async with two_workers(server, kind, handler, recorder, heartbeat_ttl=0.3) as (bus, count):
        await settled(bus, kind)
    assert sorted(tries) == [1] * count + [2] * count
    assert recorder.of(Claimed) == []


async def test_a_batch_that_fills_up_slowly_holds_each_pending_event_once(server: Server) -> None:
    """While a batch filled up, its pending messages were fetched again and again: symfony#44400, #58716, #63643."""
    kind, batches = unique(), list[list[int]]()

    @consumer(group=kind, types=[kind], batch=10, linger=1.0)
    async def handler(events: list[Event]) -> None:
        batches.append([event.data["n"] for event in events])

    async with two_workers(server, kind, handler, heartbeat_ttl=0.2) as (bus, count):
        await settled(bus, kind)
    assert sorted(n for batch in batches for n in batch) == list(range(count))


async def test_workers_started_at_the_same_moment_have_names_of_their_own(server: Server) -> None:
    """Two workers had one name, and both handled its pending messages: symfony#35358.

    Names made of the time collided: laravel-streamer#64, CAP#1698.
    """
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()

    async def work(bus: Bus, go: asyncio.Barrier, done: asyncio.Event) -> None:
        async with bus, bus.running(collects(seen, kind)):
            await go.wait()
            await done.wait()

    go, done = asyncio.Barrier(9), asyncio.Event()
    async with asyncio.TaskGroup() as tasks, a_bus(server) as bus:
        for _ in range(8):
            tasks.create_task(work(a_bus(server, recorder), go, done))
        await go.wait()
        await publish(bus, kind, *range(100))
        await settled(bus, kind)
        done.set()
    names = [one.consumer for one in recorder.of(WorkerChanged) if one.state == "started"]
    assert len(names) == len(set(names)) == 8
    assert sorted(seen) == [(n, 1) for n in range(100)]


# -- consumers that are gone


@pytest.fixture
def tidies_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaimer, "TIDY", 0.2)


@pytest.mark.usefixtures("tidies_often")
async def test_a_dead_consumer_is_removed_and_nothing_that_is_pending_goes_with_it(server: Server) -> None:
    """Names of pods piled up, redis#11567, #12423, and removing one destroyed what it had pending: redis#9745, #7384.

    A look before the removal does not help, as entries may come in between: ocean#3766. And one that has nothing
    pending is no error: symfony#40103.
    """
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()
    async with a_bus(server, recorder, prefetch=5) as bus:
        await publish(bus, kind, *range(12))
        await deliver_to(bus, kind, "dead", 12)
        await command(server, "XGROUP", "CREATECONSUMER", f"events:{kind}", kind, "empty")
        async with bus.running(collects(seen, kind)):
            await settled(bus, kind)
            (name,) = {one.consumer for one in recorder.of(WorkerChanged)}
            async with asyncio.timeout(10):
                while await bus.transport.streams.consumers([(f"events:{kind}", kind)]) != [[name]]:
                    await asyncio.sleep(0.01)
    assert sorted(seen) == [(n, 2) for n in range(12)]


@pytest.mark.usefixtures("tidies_often")
async def test_a_consumer_without_anything_to_read_is_not_taken_for_a_dead_one(server: Server) -> None:
    """Empty reads did not touch the idle time, so that the quiet and the dead looked the same: redis#9996."""
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()
    async with a_bus(server, recorder, heartbeat_ttl=0.2) as a, a_bus(server, recorder, heartbeat_ttl=0.2) as b:
        await publish(a, kind, 0)
        async with a.running(collects(seen, kind)), b.running(collects(seen, kind)):
            await command(server, "XGROUP", "CREATECONSUMER", f"events:{kind}", kind, "dead")
            names = {one.consumer for one in recorder.of(WorkerChanged)}
            async with asyncio.timeout(10):
                while "dead" in (found := (await a.transport.streams.consumers([(f"events:{kind}", kind)]))[0]):
                    await asyncio.sleep(0.01)
    assert set(found) == names
    assert len(names) == 2


async def test_a_worker_that_leaves_finishes_what_it_began_and_gives_back_the_rest_at_once(server: Server) -> None:
    """Handlers were cut off in the middle: spring-data-redis#2261, watermill#678. What was read was discarded, or not
    given back: faststream#2462, taskiq#556, celery#4354. A way to leave and let others have it was asked for: redis#13602.
    """
    kind, seen = unique(), list[tuple[int, int]]()
    begun = asyncio.Event()

    @consumer(group=kind, types=[kind])
    async def leaves(event: Event, delivery: Delivery) -> None:
        begun.set()
        await asyncio.sleep(0.1)
        seen.append((event.data["n"], delivery.tries))

    async with a_bus(server, heartbeat_ttl=30) as a, a_bus(server, heartbeat_ttl=30) as b:
        leaving = a.running(leaves)
        await leaving.__aenter__()
        await publish(a, kind, *range(30))
        await begun.wait()
        async with b.running(collects(seen, kind)):
            await leaving.__aexit__(None, None, None)
            await settled(b, kind)
    assert sorted(seen) == [(n, 1) for n in range(30)]
