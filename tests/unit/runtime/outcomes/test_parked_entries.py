"""Long waits: parked outside the pending list, taken when due, held by a lease, and ended like any other."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import Any

import pytest

from hyperbus import Backoff, BusUnavailable, Delivery, Event, Reject, Retry, consumer
from hyperbus.errors import ServerError
from hyperbus.runtime.outcomes import retry_scheduler as retrier
from hyperbus.runtime.outcomes.parked_entries import LEASE_TTLS
from hyperbus.signals import Acknowledged, EntryDeadLettered
from hyperbus.transport import Parked
from hyperbus.transports.memory.parking import MemoryParking
from tests.faults import FaultyTransport
from tests.recorder import eventually
from tests.unit.runtime.running import Running, body, read_ahead, unique


def acked(here: Running) -> int:
    return sum(signal.count for signal in here.recorder.of(Acknowledged))


def is_parked(here: Running) -> bool:
    """Tell whether a worker has parked something."""
    return bool(here.transport.streams.called("park"))


async def parked(here: Running, kind: str, group: str) -> int:
    (count,) = await here.memory.streams.parked_count([(f"events:{kind}", group)])
    return count


async def all_parked_are_gone(here: Running, kind: str, group: str) -> None:
    async with asyncio.timeout(10):
        while await parked(here, kind, group):
            await asyncio.sleep(0.005)


async def park(here: Running, kind: str, group: str, *bodies: bytes, wait: float = 0.0, tries: int = 1) -> list[bytes]:
    """Let a worker that is gone have parked entries; return their ids."""
    stream = f"events:{kind}"
    ids = await here.append(kind, *bodies)
    await here.deliver_to_the_dead(kind, group, len(bodies))
    due = time.time() + wait
    entries = [Parked(entry_id, [b"data", text], tries, 5.0, due) for entry_id, text in zip(ids, bodies, strict=True)]
    assert all(await here.memory.streams.park(stream, group, "dead", entries))
    return ids


async def test_a_long_wait_leaves_the_pending_list() -> None:
    """Bytes, tries and due time are parked; nothing of the entry is pending or held by the worker."""
    kind, group = unique(), unique()

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        raise Retry(after=120)

    async with Running(prefetch=1) as here:
        async with here.bus.running(handler):
            began = time.time()
            await here.publish(kind, 0, 1)  # the second one comes only when there is room again
            async with asyncio.timeout(10):
                while await parked(here, kind, group) < 2:
                    await asyncio.sleep(0.005)
            assert await here.pending(kind, group) == {}
        assert await parked(here, kind, group) == 2
        (due,) = await here.memory.streams.next_parked([(f"events:{kind}", group)])
        assert due == pytest.approx(began + 120, abs=2)
        first, _ = await here.memory.streams.take_parked(
            f"events:{kind}", group, "me", now=began + 200, lease=1, count=9
        )
    assert first.tries == 1
    assert first.fields[0] == b"data"
    assert b'"n":0' in first.fields[1]


async def test_what_is_parked_is_handled_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """All the way: failed, parked, taken, handled as its second try, and gone."""
    monkeypatch.setattr(retrier, "PARK_AFTER", 0.05)
    kind, group, seen = unique(), unique(), []

    @consumer(group=group, types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((delivery.tries, time.time(), delivery.body))
        if delivery.tries < 3:
            raise Retry(after=0.3)

    async with Running() as here, here.bus.running(handler):
        monkeypatch.setattr("hyperbus.runtime.outcomes.parked_entries.LOOK", 0.1)
        await here.publish(kind, 0)
        await here.recorder.wait_for(lambda _: acked(here) == 1)
        await all_parked_are_gone(here, kind, group)
        assert await here.pending(kind, group) == {}
        assert len(here.transport.streams.called("park")) == 1, "what is parked is given back, and not parked again"
    assert [tries for tries, *_ in seen] == [1, 2, 3]
    assert all(later[1] - earlier[1] >= 0.3 for earlier, later in itertools.pairwise(seen))
    assert seen[2][1] - seen[0][1] < 2
    assert len({text for *_, text in seen}) == 1


async def test_a_parked_entry_becomes_a_dead_letter_with_its_bytes() -> None:
    """Rejected, exhausted or undecodable: one atomic step, as for a pending one."""
    kind, group = unique(), unique()

    @consumer(group=group, types=[kind], retry=Backoff(initial=0, tries=3))
    async def handler(event: Event) -> None:
        raise Reject("no") if event.data["n"] == 0 else ValueError

    async with Running() as here:
        bodies = [body(0, kind), body(1, kind), b"broken \xff"]
        await park(here, kind, group, *bodies)
        async with here.bus.running(handler):
            await here.recorder.wait_for(lambda _: len(here.recorder.of(EntryDeadLettered)) == 3)
            await all_parked_are_gone(here, kind, group)
            letters = await here.dead_letters(kind, group)
    found = {letter.fields[1]: (letter.reason, letter.tries, letter.first_time) for letter in letters}
    assert found == {
        bodies[0]: ("rejected", 2, 5.0),
        bodies[1]: ("exhausted", 3, 5.0),
        bodies[2]: ("undecodable", 2, 5.0),
    }


async def test_no_more_is_taken_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest stays where it is, for whoever has room."""
    read_ahead(monkeypatch)
    kind, group, seen = unique(), unique(), []
    go_on = asyncio.Event()

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        await go_on.wait()
        seen.append(event.data["n"])

    async with Running(prefetch=2) as here:
        await park(here, kind, group, *[body(n, kind) for n in range(7)])
        async with here.bus.running(handler):
            await eventually(lambda: here.transport.streams.called("take_parked"))
            await eventually(lambda: len(here.transport.streams.called("next_parked")) > 1)
            taken = await here.memory.streams.take_parked(
                f"events:{kind}", group, "other", now=time.time(), lease=0.3, count=9
            )
            assert len(taken) == 5
            go_on.set()
            await here.recorder.wait_for(lambda _: acked(here) == 7)
    assert sorted(seen) == list(range(7))


async def test_a_live_worker_keeps_what_it_took_and_a_dead_ones_comes_back() -> None:
    """The lease is renewed while the handler runs; one that nobody renews is over after a while."""
    kind, group, seen = unique(), unique(), []

    @consumer(group=group, types=[kind], concurrency=2)
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))
        await asyncio.sleep(1.0)

    async with Running() as here:
        await park(here, kind, group, body(0, kind))
        (taken,) = await here.memory.streams.take_parked(
            f"events:{kind}", group, "dead", now=time.time(), lease=0.5, count=1
        )
        assert taken.tries == 1
        async with here.bus.running(handler), here.bus.running(handler):
            assert seen == []
            await here.recorder.wait_for(lambda _: acked(here) == 1)
            await all_parked_are_gone(here, kind, group)
    assert seen == [(0, 2)]


async def test_a_stopping_worker_gives_back_what_it_took() -> None:
    """At once; a try that had not begun is not counted, one that was cut off is."""
    kind, group = unique(), unique()
    begun = asyncio.Event()

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with Running(drain_timeout=0.2) as here:
        await park(here, kind, group, body(0, kind), body(1, kind))
        async with here.bus.running(handler):
            await asyncio.wait_for(begun.wait(), 3)
        left = await here.memory.streams.take_parked(f"events:{kind}", group, "next", now=time.time(), lease=1, count=9)
    assert sorted(entry.tries for entry in left) == [1, 2]


async def test_what_cannot_be_parked_waits_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the server out of memory the entry stays pending, with its schedule, and is tried again from there."""
    monkeypatch.setattr(retrier, "PARK_AFTER", 0.05)
    kind, group, seen = unique(), unique(), []

    @consumer(group=group, types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append(delivery.tries)
        if delivery.tries == 1:
            raise Retry(after=0.3)

    async def refuses(_: Any, _stream: str, _group: str, _consumer: str, entries: Any) -> list[bool]:
        return [False] * len(entries)

    async def fails(*_: Any) -> Any:
        raise ServerError("WRONGTYPE")

    for override in (refuses, fails):
        seen.clear()
        async with Running() as here, here.bus.running(handler):
            here.transport.streams.overrides["park"] = override
            await here.publish(kind, 0)
            await eventually(lambda here=here: here.transport.streams.called("schedule_retries"))
            assert list((await here.pending(kind, group)).values()) == [2]
            await here.recorder.wait_for(lambda _, here=here: acked(here) == 1)
        assert seen == [1, 2]


async def test_an_order_is_not_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes later of the same key has to wait for it, so it stays."""
    monkeypatch.setattr(retrier, "PARK_AFTER", 0.05)
    kind, seen = unique(), []

    @consumer(group=unique(), types=[kind], order_by="data.n")
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append(delivery.tries)
        if delivery.tries == 1:
            raise Retry(after=0.2)

    async with Running() as here, here.bus.running(handler):
        await here.publish(kind, 0)
        await here.recorder.wait_for(lambda _: acked(here) == 1)
        assert not is_parked(here)
    assert seen == [1, 2]


async def test_the_server_is_told_until_it_has_heard() -> None:
    """An outage between the handler's end and the server's answer loses nothing and repeats nothing."""
    kind, group, seen = unique(), unique(), []

    @consumer(group=group, types=[kind], concurrency=3)
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))
        if event.data["n"] == 1:
            raise Reject("no")
        if event.data["n"] == 2 and delivery.tries == 2:
            raise Retry(after=0)

    failed: dict[str, int] = {}

    def once_away(name: str) -> Any:
        async def away(method: Any, *arguments: Any) -> Any:
            failed[name] = failed.get(name, 0) + 1
            if failed[name] == 1:
                raise BusUnavailable("away")
            return await method(*arguments)

        return away

    async with Running(heartbeat_ttl=0.8) as here:
        methods = ("finish_parked", "dead_letter_parked", "reschedule_parked")
        here.transport.streams.overrides |= {name: once_away(name) for name in methods}
        await park(here, kind, group, *[body(n, kind) for n in range(3)])
        async with here.bus.running(handler):
            await here.recorder.wait_for_one(EntryDeadLettered)
            await all_parked_are_gone(here, kind, group)
    assert sorted(seen) == [(0, 2), (1, 2), (2, 2), (2, 3)]
    assert all(failed[name] >= 2 for name in methods)


async def test_what_comes_late_again_and_again_is_a_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may have died with it; what was handled is suspected no more."""
    kind, group = unique(), unique()
    suspects: list[bool] = []

    async def counts(method: Any, stream: str, takings: str, ids: Any) -> Any:
        counted = await method(stream, takings, ids)
        if takings.endswith(":parked"):
            suspects.extend(count > 1 for count in counted)
        return counted

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None: ...

    async with Running() as here:
        here.transport.streams.overrides["suspect"] = counts
        (entry_id,) = await park(here, kind, group, body(0, kind), wait=-5)
        await here.memory.streams.suspect(f"events:{kind}", f"{group}:parked", [entry_id])
        async with here.bus.running(handler):
            await here.recorder.wait_for(lambda _: acked(here) == 1)
            await all_parked_are_gone(here, kind, group)
            await eventually(lambda: here.transport.streams.called("clear_suspects"))
        assert suspects == [True]
        begun_alone = [called for called in here.transport.streams.called("suspect") if called[1] == group]
        assert len(begun_alone) == 1
        assert await here.memory.streams.suspicions(f"events:{kind}", f"{group}:parked", [entry_id]) == [0]


async def test_a_consumer_that_acks_first_finishes_what_was_parked_before_it_did() -> None:
    """A declaration can change while entries are parked."""
    kind, group, seen = unique(), unique(), []

    @consumer(group=group, types=[kind], ack="received")
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async with Running() as here:
        await park(here, kind, group, body(0, kind), b"broken")
        async with here.bus.running(handler):
            await here.recorder.wait_for_one(EntryDeadLettered)
            await all_parked_are_gone(here, kind, group)
    assert seen == [0]


async def test_a_server_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither task of the parker ends with an outage."""
    monkeypatch.setattr("hyperbus.runtime.coordination.refusals.FIRST_PAUSE", 0.02)
    kind, group, seen = unique(), unique(), []

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        await asyncio.sleep(0.4)
        seen.append(event.data["n"])

    transport = FaultyTransport()
    away = [True]

    async def fails(method: Any, *arguments: Any, **named: Any) -> Any:
        if away[0]:
            raise BusUnavailable("away")
        return await method(*arguments, **named)

    refused: list[int] = []

    async def refuses(*_: Any, **__: Any) -> Any:
        refused.append(1)
        raise ServerError("no")

    async with Running(transport) as here:
        await park(here, kind, group, body(0, kind))
        transport.streams.overrides["next_parked"] = fails
        monkeypatch.setattr(MemoryParking, "renew_parked", refuses)
        async with here.bus.running(handler):
            await eventually(lambda: len(transport.streams.called("next_parked")) > 2)
            away[0] = False
            await here.recorder.wait_for(lambda _: acked(here) >= 1)
            await eventually(lambda: refused)
            await all_parked_are_gone(here, kind, group)
    assert set(seen) == {0}


async def test_a_parked_entry_that_is_given_back_is_looked_for_at_its_time() -> None:
    """And not only when its old lease would have been over."""
    kind, group, seen = unique(), unique(), []

    @consumer(group=group, types=[kind])
    async def handler(event: Event, delivery: Delivery) -> None:
        if delivery.tries == 2:
            await asyncio.sleep(0.5)  # by then the next look is when the lease ends
        seen.append((delivery.tries, time.monotonic()))
        if delivery.tries == 2:
            raise Retry(after=0.1)

    async with Running(heartbeat_ttl=10) as here:
        await park(here, kind, group, body(0, kind))
        async with here.bus.running(handler):
            await here.recorder.wait_for(lambda _: acked(here) == 1)
    assert [tries for tries, _ in seen] == [2, 3]
    assert 0.1 <= seen[1][1] - seen[0][1] < 5


async def test_a_handler_that_blocks_the_event_loop_keeps_its_parked_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """For ten times as long as its lease: nobody else can take it, nor another one that waits in its inbox."""
    read_ahead(monkeypatch)
    kind, group, seen = unique(), unique(), []
    stolen: list[Any] = []

    async with Running(heartbeat_ttl=0.1) as here:
        lease = 0.1 * LEASE_TTLS

        async def steal(until: float) -> None:
            thief = here.memory.separate()
            await thief.open()
            while time.monotonic() < until:
                stolen.extend(
                    await thief.streams.take_parked(
                        f"events:{kind}", group, "thief", now=time.time(), lease=60, count=9
                    )
                )
                await asyncio.sleep(0.01)
            await thief.close()

        @consumer(group=group, types=[kind])
        async def handler(event: Event) -> None:
            if not seen:
                thread = threading.Thread(target=asyncio.run, args=(steal(time.monotonic() + 10 * lease),))
                thread.start()
                thread.join()  # as time.sleep does, it blocks the event loop
            seen.append(event.data["n"])

        await park(here, kind, group, body(0, kind), body(1, kind))
        async with here.bus.running(handler):
            await here.recorder.wait_for(lambda _: acked(here) == 2)
            await all_parked_are_gone(here, kind, group)
    assert stolen == []
    assert sorted(seen) == [0, 1]


@pytest.mark.parametrize("away", [False, True])
async def test_what_was_taken_too_long_ago_is_not_begun(monkeypatch: pytest.MonkeyPatch, away: bool) -> None:
    """When the answer came after the lease, others have it; when that cannot be found out it comes again."""
    monkeypatch.setattr("hyperbus.runtime.coordination.refusals.FIRST_PAUSE", 0.02)
    kind, group, seen = unique(), unique(), []
    late: list[Parked] = []

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async with Running(heartbeat_ttl=0.1) as here:

        async def comes_late(method: Any, *arguments: Any, **named: Any) -> Any:
            taken = await method(*arguments, **named)
            if taken and not late:
                late.extend(taken)
                time.sleep(0.2)
                if not away:
                    taken_by_another = await method(*arguments[:2], "other", now=time.time(), lease=0.5, count=9)
                    assert len(taken_by_another) == 1
            return taken

        async def is_away(method: Any, *arguments: Any, **named: Any) -> Any:
            if away:
                here.transport.streams.overrides.pop("renew_parked")
                raise BusUnavailable("away")
            return await method(*arguments, **named)

        here.transport.streams.overrides |= {"take_parked": comes_late, "renew_parked": is_away}
        await park(here, kind, group, body(0, kind))
        async with here.bus.running(handler):
            await eventually(lambda: late)
            await eventually(lambda: here.transport.streams.called("renew_parked"))
            assert seen == []
            await here.recorder.wait_for(lambda _: acked(here) == 1)
            await all_parked_are_gone(here, kind, group)
    assert seen == [0]


async def test_a_retry_that_is_given_back_only_while_its_worker_leaves_keeps_its_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server was away until then; it is given back once, with the time that was asked for."""
    monkeypatch.setattr("hyperbus.runtime.worker.FINISH", 0.05)
    kind, group = unique(), unique()

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        raise Retry(after=300)

    async def away(give_back: Any, *arguments: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        if task.get_name().endswith("finisher"):
            raise BusUnavailable("away")
        return await give_back(*arguments)

    async with Running(drain_timeout=0.05) as here:
        here.transport.streams.overrides["reschedule_parked"] = away
        await park(here, kind, group, body(1, kind))
        began = time.time()
        async with here.bus.running(handler):
            await eventually(lambda: here.transport.streams.called("reschedule_parked"))
        (due,) = await here.memory.streams.next_parked([(f"events:{kind}", group)])
        assert due == pytest.approx(began + 300, abs=60)
        (entry,) = await here.memory.streams.take_parked(
            f"events:{kind}", group, "me", now=began + 900, lease=1, count=9
        )
    assert entry.tries == 2
