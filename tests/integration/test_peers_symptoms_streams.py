"""What users of other systems miss in streams: bounds, order, wildcards, concurrency, dead letters, a place to start.

`peers_symptoms.toml` lists every symptom, and where it is shown.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any

import pytest

from hyperbus import Backoff, Delivery, Event, EventData, Keep, Reject, Retry, consumer
from hyperbus.runtime.retention.trimmer import Trimmer
from hyperbus.signals import CutUnread, EntryDeadLettered, GhostStream, GroupAbandoned, StreamsFound
from tests.recorder import Recorder, eventually
from tests.servers import Server
from tests.symptoms import MOST_COMMANDS, a_bus, collects, command, commands_a_second, length, pending, publish, settled
from tests.unit.runtime.running import body, unique

pytestmark = pytest.mark.one_server

# -- memory


async def shorter_than(bus: Any, kind: str, most: int, *, within: float = 8.0) -> None:
    async with asyncio.timeout(within):
        while await length(bus, kind) > most:
            await asyncio.sleep(0.02)


async def test_a_group_that_nobody_serves_does_not_hold_its_stream_for_ever(server: Server) -> None:
    """One inactive group kept everything, until the server was out of memory: prefect#18606."""
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()
    async with a_bus(server, recorder, prefix=unique("p"), retain_age=0.05, abandon_after=0.5) as bus:
        await publish(bus, kind, *range(1_500))
        await bus.transport.streams.create_groups([(f"{bus.prefix}:{kind}", "left-behind", b"0-0")])
        async with bus.running(collects(seen, kind, concurrency=100)):
            await shorter_than(bus, kind, 100)
            await settled(bus, kind)
    assert len(seen) == 1_500
    assert {one.group for one in recorder.of(GroupAbandoned)} == {"left-behind"}
    assert {one.group for one in recorder.of(CutUnread)} == {"left-behind"}


async def test_a_process_that_sees_every_event_leaves_no_group_behind_however_it_ends(server: Server) -> None:
    """Each process had a group for its lifetime, and a SIGKILL left it behind for good: prefect#22200."""
    kind, seen = unique(), list[tuple[int, int]]()
    async with a_bus(server) as bus, bus.running(collects(seen, kind, audience="every_process")):
        await publish(bus, kind, 0)
        await eventually(lambda: seen)
        assert await command(server, "XINFO", "GROUPS", f"events:{kind}") == []


async def test_a_stream_that_nobody_consumes_is_bounded_and_told_of(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream without any consumer grew, and nobody knew: openlinker#2163."""
    monkeypatch.setitem(Trimmer.__init__.__kwdefaults__, "ghost_grace", 0.1)
    kind, other, seen, recorder = unique(), unique(), list[tuple[int, int]](), Recorder()
    chosen = a_bus(server, recorder, prefix=unique("p"), ghost_bytes=50_000)
    async with chosen as bus, bus.running(collects(seen, other)):
        await publish(bus, kind, *range(3_000))
        await shorter_than(bus, kind, 2_000)
        assert (await recorder.wait_for_one(GhostStream)).stream == f"{bus.prefix}:{kind}"


class Sized(EventData, type="peers.sized", retention=Keep(entries=200)):
    n: int


async def test_a_producer_that_knows_no_limit_does_not_undo_that_of_the_stream(server: Server) -> None:
    """The size was each producer's to give, with every XADD: redis#10270."""
    kind, seen, prefix = "peers.sized", list[int](), unique("p")

    @consumer(group="g")
    async def handler(event: Event[Sized]) -> None:
        seen.append(event.data.n)

    async with a_bus(server, prefix=prefix) as bus, bus.running(handler):
        for n in range(600):
            await command(server, "XADD", f"{prefix}:{kind}", "*", "data", body(n, kind))
        await eventually(lambda: len(seen) == 600)
        await shorter_than(bus, kind, 220)
    assert seen == list(range(600))


# -- order


async def test_keys_are_handled_side_by_side_and_each_of_them_in_order(server: Server) -> None:
    """Either one thread for all or no order at all: connect#1800, components-contrib#277."""
    kind, together, most = unique(), set[str](), 0
    order: dict[str, list[int]] = defaultdict(list)

    @consumer(group=kind, types=[kind], concurrency=10, order_by="workflow_id")
    async def handler(event: Event) -> None:
        nonlocal most
        assert event.workflow_id is not None
        assert event.workflow_id not in together
        together.add(event.workflow_id)
        most = max(most, len(together))
        await asyncio.sleep(0.005)
        order[event.workflow_id].append(event.data["n"])
        together.remove(event.workflow_id)

    async with a_bus(server) as bus:
        for n in range(10):
            await bus.publish_many([Event(type=kind, data={"n": n}, workflow_id=key) for key in "abcde"])
        async with bus.running(handler):
            await settled(bus, kind)
    assert order == {key: list(range(10)) for key in "abcde"}
    assert most == 5


async def test_a_retry_is_not_overtaken_by_later_events_of_its_key(server: Server) -> None:
    """After RETRY the next messages came first: components-contrib#2204."""
    kind, order = unique(), list[tuple[str | None, int]]()

    @consumer(group=kind, types=[kind], concurrency=10, order_by="workflow_id", retry=Backoff(initial=0.1))
    async def handler(event: Event, delivery: Delivery) -> None:
        if event.workflow_id == "a" and event.data["n"] == 0 and delivery.tries < 3:
            raise Retry
        order.append((event.workflow_id, event.data["n"]))

    async with a_bus(server) as bus:
        await publish(bus, kind, 0, 1, 2, workflow_id="a")
        await publish(bus, kind, 0, workflow_id="b")
        async with bus.running(handler):
            await settled(bus, kind)
    assert order == [("b", 0), ("a", 0), ("a", 1), ("a", 2)]


# -- many streams


async def test_one_wildcard_takes_many_streams_and_those_born_later(server: Server) -> None:
    """Streams have no wildcards, so that a team left them, and others asked for groups of streams.

    go-mod-messaging#99, laravel/ideas#2055, redis#11467.
    """
    word, seen, recorder = unique("w"), list[tuple[int, int]](), Recorder()
    async with a_bus(server, recorder) as bus:
        for n in range(50):
            await publish(bus, f"{word}.before.s{n}", n)
        async with bus.running(collects(seen, word, types=[f"{word}.*"], concurrency=10)):
            await eventually(lambda: len(seen) == 50)
            await publish(bus, f"{word}.later", 50)
            await eventually(lambda: (50, 1) in seen)
    assert sorted(seen) == [(n, 1) for n in range(51)]
    assert any(f"events:{word}.later" in one.streams for one in recorder.of(StreamsFound))


# -- concurrency


async def test_as_many_events_are_handled_at_once_as_were_asked_for_and_no_more(server: Server) -> None:
    """One message at a time: faststream#2217, #1507, dapr#171. Or as many as there were: faststream#2530."""
    kind, now, most = unique(), 0, 0

    @consumer(group=kind, types=[kind], concurrency=7)
    async def handler(event: Event) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    async with a_bus(server) as bus:
        await publish(bus, kind, *range(50))
        async with bus.running(handler):
            await settled(bus, kind)
    assert most == 7


async def test_handlers_that_run_at_once_ack_each_its_own_event(server: Server) -> None:
    """Acks that wait for the handler and several handlers at once could not be had together: faststream#3069."""
    kind, done, release = unique(), set[int](), asyncio.Event()

    @consumer(group=kind, types=[kind], concurrency=5)
    async def handler(event: Event) -> None:
        if event.data["n"] == 0:
            await release.wait()
        done.add(event.data["n"])

    async with a_bus(server) as bus, bus.running(handler):
        ids = await publish(bus, kind, *range(20))
        await eventually(lambda: len(done) == 19)
        async with asyncio.timeout(10):
            while sum((await pending(bus, kind)).values()) > 1:
                await asyncio.sleep(0.01)
        (left,) = await bus.transport.streams.pending(f"events:{kind}", kind)
        assert left.id.decode() == ids[0]
        release.set()
        await settled(bus, kind)


# -- failures


async def test_an_event_that_nobody_can_handle_becomes_a_dead_letter_with_all_that_was_in_it(server: Server) -> None:
    """A stream has no dead letters of its own: redis#7386."""
    kind, recorder = unique(), Recorder()

    @consumer(group=kind, types=[kind])
    async def handler(event: Event) -> None:
        raise Reject("nobody can")

    async with a_bus(server, recorder) as bus, bus.running(handler):
        written = body(0, kind)
        await command(server, "XADD", f"events:{kind}", "*", "data", written)
        await recorder.wait_for_one(EntryDeadLettered)
        ((_, letter),) = await bus.transport.streams.dead_letters(f"events:{kind}", kind)
        await settled(bus, kind)
    assert (letter.reason, letter.message, letter.fields) == ("rejected", "nobody can", [b"data", written])


async def test_a_handler_gives_an_event_back_for_at_once_or_for_later(server: Server) -> None:
    """There was no way to say no but to let the idle time pass, redis#5934, redis#14797; nor to say when to come again:
    eventing-redis#76.
    """
    kind, times = unique(), list[float]()

    @consumer(group=kind, types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        times.append(time.monotonic())
        if delivery.tries < 3:
            raise Retry(after=0 if delivery.tries == 1 else 1.0)

    async with a_bus(server, heartbeat_ttl=30) as bus, bus.running(handler):
        await publish(bus, kind, 0)
        await settled(bus, kind)
    at_once, later = times[1] - times[0], times[2] - times[1]
    assert at_once < later
    assert later > 0.95


async def test_a_retry_of_one_group_is_not_seen_by_the_others(server: Server) -> None:
    """Retries went over a stream that all groups shared, so that one group's failure was everybody's: EggAI#225."""
    kind, seen, tries = unique(), list[tuple[int, int]](), list[int]()

    @consumer(group=f"{kind}-fails", types=[kind], retry=Backoff(initial=0.02, tries=3))
    async def fails(event: Event, delivery: Delivery) -> None:
        tries.append(delivery.tries)
        raise ValueError

    async with a_bus(server) as bus, bus.running(fails, collects(seen, kind)):
        await publish(bus, kind, 0)
        await settled(bus, kind, f"{kind}-fails")
        await publish(bus, kind, 1)
        await settled(bus, kind, f"{kind}-fails")
        assert await bus.transport.streams.dead_letters(f"events:{kind}", kind) == []
    assert tries == [1, 2, 3, 1, 2, 3]
    assert seen == [(0, 1), (1, 1)]


# -- where a group begins


@pytest.mark.parametrize("start", ["first", "0-0", "after the second"])
async def test_a_group_may_begin_before_it_was_made_and_goes_on_from_there(server: Server, start: str) -> None:
    """What was there before the group could not be read: faststream#2694. With `last_id="0"` nothing was delivered at all,
    and asked for 8,000 times a second: EggAI#269.
    """
    kind, seen = unique(), list[tuple[int, int]]()
    with Server(server.binary) as own:
        async with a_bus(own) as bus:
            ids = await publish(bus, kind, *range(4))
            begin = ids[1] if start == "after the second" else start
            async with bus.running(collects(seen, kind, start_from=begin)):
                await publish(bus, kind, 4)
                await settled(bus, kind)
                assert await commands_a_second(own, seconds=0.3) < MOST_COMMANDS
    assert seen == [(n, 1) for n in range(2 if start == "after the second" else 0, 5)]
