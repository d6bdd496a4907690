"""Where a loop over events begins and is, what a consumer is told of the streams it names, and whose failures are warned of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumers.log import LogAggregator
from hyperbus import Bus, Event, consumer
from hyperbus.errors import InvalidSettingError
from hyperbus.settings import Settings
from tests.recorder import Recorder, eventually
from tests.unit.runtime.running import unique

WITHIN = 20.0


def a_bus(*listeners: Any) -> Bus:
    """Return a bus on memory with short times."""
    return Bus("memory://", settings=Settings(scan_interval=0.2, heartbeat_ttl=0.4), listeners=listeners)


async def test_reading_from_now_on_misses_nothing_that_comes() -> None:
    """In streams that are there and in those that are born later, also with a glob; what was before is left out."""
    kind = unique()
    async with a_bus() as bus:
        await bus.publish_many([Event(type=f"{kind}.{name}", data={"n": -1}) for name in "ab" for _ in range(50)])
        seen: list[int] = []

        async def read() -> None:
            async for event in bus.read(f"{kind}.*", after="now"):
                seen.append(event.data["n"])  # noqa: PERF401 - it is looked at meanwhile

        reading = asyncio.create_task(read())
        n = 0
        async with asyncio.timeout(WITHIN):  # until it has begun
            while not seen:
                await bus.publish(Event(type=f"{kind}.a", data={"n": n}))
                n += 1
                await asyncio.sleep(0.02)
        first = seen[0]
        events = [Event(type=f"{kind}.{name}", data={"n": number}) for number in range(n, n + 60) for name in "abc"]
        await bus.publish_many(events)
        wanted = sorted([*range(first, n), *(event.data["n"] for event in events)])
        await eventually(lambda: sorted(seen) == wanted, within=WITHIN)
        reading.cancel()
        await asyncio.wait((reading,))


@pytest.mark.parametrize("after", ["$", "garbage", "1-", "-1", "now ", "1-1-1", ">", "+"])
async def test_what_is_no_entry_id_is_refused_with_what_to_say(after: str) -> None:
    """`$` is another place in each stream: what comes between two of them was lost."""
    async with a_bus() as bus:
        with pytest.raises(InvalidSettingError, match="'now'"):
            async with asyncio.timeout(WITHIN):
                await anext(bus.read("x", after=after))


async def test_a_loop_knows_where_to_go_on_another_time() -> None:
    """Each event's entry id is that of its publish; the wire knows nothing of it."""
    kind = unique()
    async with a_bus() as bus:
        ids = await bus.publish_many([Event(type=kind, data={"n": n}) for n in range(5)])
        events = bus.read(kind)
        assert events.entry_id is None
        for n in range(3):
            assert (await anext(events)).data == {"n": n}
            assert (events.entry_id, events.stream) == (ids[n], f"events:{kind}")
        await events.aclose()
        again = bus.read(kind, after=events.entry_id)
        assert [(await anext(again)).data["n"] for _ in range(2)] == [3, 4]
        await again.aclose()


@pytest.mark.parametrize("audience", ["group", "every_process"])
async def test_a_misspelt_name_is_not_said_to_be_found(audience: Any) -> None:
    """It is waited for, which is said once; what is there is found."""
    good, misspelt, recorder, seen = unique(), unique("mispselt"), Recorder(), []
    async with a_bus(recorder) as bus:
        await bus.publish(Event(type=good, data={}))

        @consumer(types=[good, misspelt], audience=audience)
        async def handler(event: Event) -> None:
            seen.append(event.type)

        async with bus.running(handler):
            await bus.publish(Event(type=misspelt, data={}))
            await eventually(lambda: misspelt in seen, within=WITHIN)
    told = [
        (type(signal).__name__, signal.streams)
        for signal in recorder.signals
        if type(signal).__name__ in ("StreamsFound", "StreamsAwaited")
    ]
    assert told == [("StreamsFound", (f"events:{good}",)), ("StreamsAwaited", (f"events:{misspelt}",))]


@pytest.mark.parametrize("kind", ["payment.failed", "failed", "login.attempt.failed"])
async def test_business_that_is_called_failed_is_nobodys_failure(kind: str) -> None:
    """The log consumer sums it up like any other, and warns of nothing."""
    with capture_logs() as lines:
        async with a_bus() as bus, bus.running(LogAggregator()):
            await bus.publish(Event(type=kind, data={"error": "no money"}))
            await asyncio.sleep(0.05)
    assert [line for line in lines if line["log_level"] in ("warning", "error")] == []
