"""What is pending with a worker that does not know of it: in every stream, and while other entries are being acked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hyperbus import BusUnavailable, Event, consumer
from hyperbus.clock import SystemClock
from hyperbus.runtime.coordination.era import Era
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.pending_doubt import PendingDoubt
from hyperbus.runtime.in_flight.received import receive
from hyperbus.runtime.reading import pending_recovery
from hyperbus.runtime.reading.pending_recovery import PendingRecovery
from hyperbus.signals import Acknowledged, Announcer, Disowned
from hyperbus.transport import NewEntry
from tests.faults import FaultyTransport
from tests.recorder import Recorder, eventually
from tests.unit.runtime.running import Running, read_ahead, unique


@pytest.mark.parametrize("odd", [0, 1, 2])
async def test_what_a_broken_read_brought_is_found_in_whichever_stream_it_is(odd: int) -> None:
    """One of several streams has it; those before and after it have nothing."""
    kinds, group, seen, broken = [unique() for _ in range(3)], unique(), list[int](), list[str]()
    here = Running()

    @consumer(group=group, types=kinds)
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async def breaks(read: Any, *arguments: Any, **options: Any) -> Any:
        found = await read(*arguments, **options)
        if found and not broken:
            broken.append(found[0][0])
            raise BusUnavailable("the answer was lost")
        return found

    here.transport.reader_overrides["read_group"] = breaks
    async with here, here.bus.running(handler):
        await here.publish(kinds[odd], 1)
        await eventually(lambda: seen == [1])
        await eventually(lambda: here.recorder.of(Acknowledged))
        assert await here.pending(kinds[odd], group) == {}
    assert broken == [f"events:{kinds[odd]}"]


async def test_what_is_acked_while_it_is_read_again_is_not_handled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server told of it before its ack: that answer is old when it comes."""
    read_ahead(monkeypatch)
    kind, group, seen, broken = unique(), unique(), list[int](), list[Any]()
    release = asyncio.Event()
    here = Running()

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])
        if event.data["n"] == 1:
            await release.wait()

    async def breaks(read: Any, *arguments: Any, **options: Any) -> Any:
        found = await read(*arguments, **options)
        if found and seen and not broken:
            broken.append(found)
            raise BusUnavailable("the answer was lost")
        return found

    async def slowly(read: Any, *arguments: Any, **options: Any) -> Any:
        found = await read(*arguments, **options)
        if len(found) == 2:
            release.set()
            await here.recorder.wait_for_one(Acknowledged)
        return found

    here.transport.reader_overrides |= {"read_group": breaks, "read_pending": slowly}
    async with here, here.bus.running(handler):
        await here.publish(kind, 1)
        await eventually(lambda: seen == [1])
        await here.publish(kind, 2)
        await eventually(lambda: 2 in seen)
        await here.publish(kind, 3)
        await eventually(lambda: 3 in seen)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("pages", [1, 2, 3])
async def test_what_is_pending_still_is_kept_in_a_new_era_however_many_pages_it_fills(
    monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    """Only what the server does not have as this worker's is disowned: here what somebody else acked."""
    monkeypatch.setattr(pending_recovery, "PENDING_PAGE", 3)
    transport, recorder = FaultyTransport(), Recorder()
    era = Era(cast("Any", SimpleNamespace(era=0)))
    await transport.open()
    streams = transport.inner.streams
    await streams.create_groups([("s", "g", b"0-0")])
    await streams.append([NewEntry("s", b"data", b"x")] * 3 * pages)
    reads = transport.inner.open_reader()
    [(_, entries)] = await reads.read_group("g", "me", ["s"], count=100, block=0)
    await reads.close()
    ids, inbox = [entry.id for entry in entries], Inbox(1000, 1_000_000)
    inbox.put("s", receive("s", "t", entries, 0.0))
    await streams.ack([("s", "g", ids[:1])])
    member = Member("g", "me", streams, SystemClock(), Announcer([recorder]), era)
    recovery = PendingRecovery(
        member, cast("Any", None), cast("Any", SimpleNamespace(readable=lambda: ())), inbox, PendingDoubt(era),
        cast("Any", None), cast("Any", None), cast("Any", SimpleNamespace(held_of=lambda _: set())),
    )  # fmt: skip
    cast("Any", era)._transport.era = 1
    await recovery.settle()
    assert inbox.held_ids().get("s", set()) == set(ids[1:])
    assert [signal.count for signal in recorder.of(Disowned)] == [1]
