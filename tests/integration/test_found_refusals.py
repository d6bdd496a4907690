"""A server that refuses for a while: what it refuses is kept and asked again, and work goes on when it is over."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from typing import Any

import pytest

from hyperbus import Delivery, Event, Reject, Retry, consumer
from hyperbus.signals import EntryDeadLettered
from hyperbus.transport import Parked
from tests.recorder import Recorder, eventually
from tests.refusing import WAYS, Refusing, refusing, told_refusals
from tests.servers import Server
from tests.symptoms import MOST_COMMANDS, a_bus, collects, deliver_to, pending, publish, settled
from tests.unit.runtime.running import unique

pytestmark = pytest.mark.one_server

#: How long the server refuses.
LASTING = 60.0 if os.environ.get("HYPERBUS_TEST_LONG") else 1.0
#: How soon after that work goes on: a second or two, and more on a busy machine.
SOON = 8.0


async def no_more_is_lost(here: Refusing, bus: Any, kind: str) -> None:
    """Cut the workers' connections, after which they ask what is pending with them; wait until they have."""
    before = (await pending(bus, kind)).values()
    await here.cut_workers()
    await asyncio.sleep(0.7)
    assert sum((await pending(bus, kind)).values()) >= sum(before)


# -- outcomes that are refused


async def test_acks_that_are_refused_are_kept_and_nothing_is_handled_twice(server: Server) -> None:
    """They were dropped, and all of it came again: 6,597 duplicates of 3,840 events. Nothing was told."""
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()
    async with refusing(server.binary) as here, a_bus(here.server, recorder, url=here.url) as bus:
        async with bus.running(collects(seen, kind)):
            await here.rights("-xack")
            await publish(bus, kind, *range(200))
            await eventually(lambda: len(seen) == 200)
            asked = await here.asked()
            await no_more_is_lost(here, bus, kind)
            assert await here.asked() - asked < MOST_COMMANDS
            await here.rights("+xack")
            await settled(bus, kind, within=SOON)
        assert seen == [(n, 1) for n in range(200)]
        reasons = [why for part, why in told_refusals(recorder) if "NOPERM" in why]
        assert len(reasons) == 1
        assert "xack" in reasons[0].lower()


async def test_acks_of_one_stream_that_are_refused_hold_up_no_other_stream(server: Server) -> None:
    """And what is refused bounds what the worker takes: it holds no more than it may."""
    kept, free, seen = unique(), unique(), Counter[tuple[str, int]]()

    @consumer(group="g", types=[kept, free])
    async def handler(event: Event) -> None:
        seen[event.type, event.data["n"]] += 1

    async with refusing(server.binary) as here, a_bus(here.server, url=here.url, prefetch=40) as bus:
        await bus.publish_many([Event(type=kind, data={"n": n}) for n in range(20) for kind in (kept, free)])
        async with bus.running(handler):
            await eventually(lambda: sum(seen.values()) == 40)
            await settled(bus, kept, "g")
            # selectors: all of it but acks, for one stream
            await here.rights("-xack", f"(+xack ~events:{free} ~hyperbus:* ~{{events:{free}}}*)")
            await publish(bus, kept, *range(100, 110))
            await publish(bus, free, *range(100, 110))
            await eventually(lambda: all(seen[free, n] for n in range(100, 110)))
            await settled(bus, free, "g", within=SOON)
            await publish(bus, kept, *range(200, 400))
            await eventually(lambda: sum(seen.values()) >= 40 + 20 + 30)
            await asyncio.sleep(0.3)
            assert sum((await pending(bus, kept, "g")).values()) <= 2 * 40, "one read may go over the bound"
            await here.rights("clearselectors", "+xack")
            await settled(bus, kept, "g", within=SOON)
    assert set(seen.values()) == {1}


@pytest.mark.parametrize("refused", ["xadd", "xack"])
async def test_dead_letters_that_are_refused_are_written_later(server: Server, refused: str) -> None:
    """The entry stays pending until its letter is stored, and the handler does not see it again."""
    kind, begun, recorder = unique(), Counter[int](), Recorder()

    @consumer(group=kind, types=[kind])
    async def handler(event: Event) -> None:
        begun[event.data["n"]] += 1
        raise Reject("no")

    async with refusing(server.binary) as here, a_bus(here.server, recorder, url=here.url) as bus:
        await publish(bus, kind, *range(10))
        await here.rights(f"-{refused}")
        async with bus.running(handler):
            await eventually(lambda: len(begun) == 10)
            await no_more_is_lost(here, bus, kind)
            assert sum((await pending(bus, kind)).values()) == 10
            await here.rights("+@all")
            await recorder.wait_for(lambda _: len(recorder.of(EntryDeadLettered)) == 10, within=SOON)
        assert [letter.entry_id for _, letter in await bus.transport.streams.dead_letters(f"events:{kind}", kind)]
        assert await pending(bus, kind) == {}
    assert set(begun.values()) == {1}


@pytest.mark.parametrize("refused", ["zadd", "xclaim"])
async def test_counts_of_tries_that_are_refused_are_written_later(server: Server, refused: str) -> None:
    """The wait goes on meanwhile; once it is written a crash does not start it anew."""
    kind, seen = unique(), list[tuple[int, int]]()

    @consumer(group=kind, types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))
        raise Retry(after=30)

    async with refusing(server.binary) as here, a_bus(here.server, url=here.url) as bus:
        await publish(bus, kind, 0)
        await here.rights(f"-{refused}")
        async with bus.running(handler):
            await eventually(lambda: seen == [(0, 1)])
            await here.rights("+@all")
            async with asyncio.timeout(SOON):
                while [one.delivery_count for one in await bus.transport.streams.pending(f"events:{kind}", kind)] != [
                    2
                ]:
                    await asyncio.sleep(0.02)
    assert seen == [(0, 1)]


@pytest.mark.parametrize("refused", ["hset", "zadd", "xack"])
async def test_an_entry_whose_parking_is_refused_is_not_both_parked_and_pending(server: Server, refused: str) -> None:
    """Half of it was done: then it came from both sides, and was handled twice at its time."""
    kind, seen = unique(), list[int]()

    @consumer(group=kind, types=[kind])
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])
        raise Retry(after=600)

    async with refusing(server.binary) as here, a_bus(here.server, url=here.url) as bus:
        await publish(bus, kind, 0)
        await here.rights(f"-{refused}")
        async with bus.running(handler):
            await eventually(lambda: seen == [0])
            for _ in range(10):
                await asyncio.sleep(0.05)
                (count,) = await bus.transport.streams.parked_count([(f"events:{kind}", kind)])
                (left,) = await bus.transport.streams.pending_summaries([(f"events:{kind}", kind)])
                assert (count, left.total) == (0, 1)
            await here.rights("+@all")
            await asyncio.sleep(1.2)
        (count,) = await bus.transport.streams.parked_count([(f"events:{kind}", kind)])
        (left,) = await bus.transport.streams.pending_summaries([(f"events:{kind}", kind)])
        assert count + left.total == 1
    assert seen == [0]


async def test_ends_of_parked_entries_that_are_refused_are_told_later(server: Server) -> None:
    """Else each comes again after its lease, though it was handled."""
    kind, seen = unique(), list[int]()

    @consumer(group=kind, types=[kind])
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async with refusing(server.binary) as here, a_bus(here.server, url=here.url) as bus:
        await publish(bus, kind, 0)
        stream = f"events:{kind}"
        await bus.transport.streams.create_groups([(stream, kind, b"0-0")])
        reader = bus.transport.open_reader()
        [(_, page)] = await reader.read_group(kind, "gone", [stream], count=1, block=0)
        entry = page[0]
        assert await bus.transport.streams.park(
            stream, kind, "gone", [Parked(entry.id, entry.fields, 1, time.time(), time.time())]
        ) == [True]
        await here.rights("-hdel")
        async with bus.running(handler):
            await eventually(lambda: seen == [0])
            await asyncio.sleep(1.5)  # longer than its lease
            await here.rights("+hdel")
            async with asyncio.timeout(SOON):
                while await bus.transport.streams.parked_count([(stream, kind)]) != [0]:
                    await asyncio.sleep(0.02)
    assert seen == [0]


async def test_claims_that_are_refused_are_made_later(server: Server) -> None:
    """What a dead worker left is taken over once that is allowed, and the refusal is told."""
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()
    async with refusing(server.binary) as here, a_bus(here.server, recorder, url=here.url) as bus:
        await publish(bus, kind, *range(5))
        await deliver_to(bus, kind, "dead", 5)
        await here.rights("-xclaim")
        async with bus.running(collects(seen, kind)):
            await eventually(lambda: told_refusals(recorder))
            assert seen == []
            await here.rights("+xclaim")
            await eventually(lambda: len(seen) == 5, within=SOON)
            await settled(bus, kind)


async def test_checkpoints_that_are_refused_are_saved_later(server: Server) -> None:
    """Told once, though a sweep is refused several times a second; handling and acking go on meanwhile."""
    kind, seen, recorder = unique(), list[tuple[int, int]](), Recorder()
    async with (
        refusing(server.binary) as here,
        a_bus(here.server, recorder, url=here.url) as bus,
        bus.running(collects(seen, kind)),
    ):
        await here.rights("-set")
        ids = await publish(bus, kind, *range(5))
        await settled(bus, kind)
        await eventually(lambda: told_refusals(recorder))
        await asyncio.sleep(1.0)
        await here.rights("+set")
        async with asyncio.timeout(SOON):
            while await bus.transport.streams.checkpoints([(f"events:{kind}", kind)]) != [ids[-1].encode()]:
                await asyncio.sleep(0.02)
    assert seen == [(n, 1) for n in range(5)]
    assert Counter(part for part, _ in told_refusals(recorder))[f"sweeps of {kind}"] == 1


# -- reading that is refused


@pytest.mark.parametrize("how", ["group", "ordered", "every_process", "glob"])
async def test_a_moment_without_rights_does_not_stop_reading_for_half_a_minute(server: Server, how: str) -> None:
    """While credentials change; any refusal set all streams aside for 30 s."""
    word, seen = unique(), list[int]()
    kinds = [f"{word}.a", f"{word}.b"]
    options: dict[str, Any] = {"types": kinds}
    if how == "ordered":
        options["order_by"] = "data.n"
    elif how == "every_process":
        options["audience"] = "every_process"
    elif how == "glob":
        options["types"] = [f"{word}.*"]

    @consumer(group="g", **options)
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async with refusing(server.binary) as here, a_bus(here.server, url=here.url) as bus, bus.running(handler):
        for n, kind in enumerate(kinds):
            await publish(bus, kind, n)
        await eventually(lambda: sorted(seen) == [0, 1])
        async with WAYS["NOPERM"](here):
            await here.cut_workers()  # else a read that waits notices nothing
            await asyncio.sleep(0.7)
        for n, kind in enumerate(kinds):
            await publish(bus, kind, n + 2)
        if how == "glob":
            await publish(bus, f"{word}.c", 4)
        await eventually(lambda: len(seen) == (5 if how == "glob" else 4), within=SOON)


async def test_one_stream_that_may_not_be_read_harms_no_other_and_is_read_once_it_may(server: Server) -> None:
    """It is told once, and not each time that it is looked at."""
    open_, closed, seen, recorder = unique(), unique(), list[str](), Recorder()

    @consumer(group="g", types=[open_, closed])
    async def handler(event: Event) -> None:
        seen.append(event.type)

    async with refusing(server.binary) as here, a_bus(here.server, recorder, url=here.url) as bus:
        await publish(bus, closed, 0)
        async with bus.running(handler):
            await eventually(lambda: seen == [closed])
            await here.rights("resetkeys", f"~events:{open_}", "~hyperbus:*", f"~{{events:{open_}}}*")
            await publish(bus, open_, 1)
            await eventually(lambda: seen == [closed, open_], within=SOON)
            await eventually(lambda: told_refusals(recorder), within=SOON)
            before = len(told_refusals(recorder))
            await asyncio.sleep(2.5)
            assert len(told_refusals(recorder)) == before
            await publish(bus, open_, 2)
            await eventually(lambda: seen == [closed, open_, open_], within=SOON)
            await here.rights("~*")
            await publish(bus, closed, 3)
            await eventually(lambda: seen == [closed, open_, open_, closed], within=SOON)


@pytest.mark.parametrize("word", list(WAYS))
async def test_a_server_that_refuses_is_waited_for_without_haste_and_without_noise(server: Server, word: str) -> None:
    """Workers live, say once why they stand still, do not spin, and go on soon after; nothing is lost or done twice."""
    kind, other, seen, recorder = unique(), unique(), list[tuple[int, int]](), Recorder()
    held, others = asyncio.Event(), list[int]()

    @consumer(group=other, types=[other])
    async def holds(event: Event) -> None:
        await held.wait()
        others.append(event.data["n"])

    async with (
        refusing(server.binary) as here,
        a_bus(here.server, recorder, url=here.url) as bus,
        bus.running(collects(seen, kind), holds),
    ):
        await publish(bus, kind, 0)
        await publish(bus, other, 0)
        await settled(bus, kind)
        asked, began = (0 if word == "BUSY" else await here.asked()), time.monotonic()
        async with WAYS[word](here):
            await asyncio.sleep(LASTING)
            held.set()
            if word != "BUSY":
                rate = (await here.asked() - asked) / (time.monotonic() - began)
                assert rate < MOST_COMMANDS
        async with asyncio.timeout(SOON):
            while True:
                try:
                    await publish(bus, kind, 1)
                    break
                except Exception:  # a publisher hears of the refusal at once
                    await asyncio.sleep(0.05)
        await eventually(lambda: {n for n, _ in seen} == {0, 1}, within=SOON)
        await settled(bus, kind, within=SOON)
        await settled(bus, other, within=SOON)
    assert others == [0]
    assert [n for n, _ in seen].count(0) == 1
    parts = Counter(part for part, _ in told_refusals(recorder))
    assert all(times <= 2 for times in parts.values()), told_refusals(recorder)
    if word != "OOM":  # all that workers do is still taken
        assert parts
        assert all(why for _, why in told_refusals(recorder))
    said = {"WRONGPASS": "password"}.get(word, word)
    if word in {"NOPERM", "WRONGPASS", "MISCONF", "BUSY", "READONLY"}:
        assert any(said in why for _, why in told_refusals(recorder)), told_refusals(recorder)
