"""How deliveries end: acked, tried again, given up; one event's failure and its neighbours."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperbus import Backoff, BusUnavailable, Delivery, Event, EventData, Reject, Retry, consumer
from hyperbus.errors import OutOfMemoryError, ServerError, WrongTypeError
from hyperbus.runtime.outcomes.dead_letter import MESSAGE_LIMIT, TRACE_LIMIT
from hyperbus.signals import Acknowledged, EntryDeadLettered, Handled, RetryScheduled
from tests.recorder import eventually
from tests.unit.runtime.running import Running, body, unique

AT_ONCE = Backoff(initial=0, tries=3)


def acked(here: Running) -> int:
    return sum(signal.count for signal in here.recorder.of(Acknowledged))


class Counted(EventData, type="runtime_test.counted"):
    n: int


async def test_a_failure_is_tried_again_and_holds_up_nobody() -> None:
    """The next event is handled while the failed one waits; tries are counted and announced."""
    kind, group, seen = unique(), unique(), []

    @consumer(group=group, types=[kind], retry=Backoff(initial=0.02, factor=1, jitter=0, tries=3))
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))
        if event.data["n"] == 0 and delivery.tries < 3:
            raise ValueError("not yet")

    async with Running() as here, here.bus.running(handler):
        await here.publish(kind, 0, 1)
        await here.recorder.wait_for(lambda _: acked(here) == 2)
        assert await here.pending(kind, group) == {}
    assert seen == [(0, 1), (1, 1), (0, 2), (0, 3)]
    scheduled = here.recorder.of(RetryScheduled)
    assert [(signal.tries, signal.after, signal.error) for signal in scheduled] == [
        (1, 0.02, "ValueError('not yet')"),
        (2, 0.02, "ValueError('not yet')"),
    ]
    assert sum(sum(signal.retried.values()) for signal in here.recorder.of(Handled)) == 2


async def test_tries_are_written_to_the_server_before_the_wait() -> None:
    """Whoever takes over after a crash goes on counting."""
    kind, group = unique(), unique()

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        raise Retry(after=60)

    async with Running() as here:
        async with here.bus.running(handler):
            await here.publish(kind, 0)

            async def counted() -> bool:
                return list((await here.pending(kind, group)).values()) == [2]

            async with asyncio.timeout(10):
                while not await counted():
                    await asyncio.sleep(0.005)
        assert list((await here.pending(kind, group)).values()) == [1], "a try that did not come is handed back"


async def test_a_count_that_cannot_be_written_costs_nothing_else() -> None:
    """The retry comes all the same."""
    kind, seen = unique(), []

    @consumer(group=unique(), types=[kind], retry=AT_ONCE)
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append(delivery.tries)
        if delivery.tries == 1:
            raise ValueError

    async def fails(*_: Any) -> Any:
        raise ServerError("no")

    async with Running() as here, here.bus.running(handler):
        here.transport.streams.overrides["set_delivery_counts"] = fails
        await here.publish(kind, 0)
        await here.recorder.wait_for_one(Acknowledged)
    assert seen == [1, 2]


@pytest.mark.parametrize(
    ("raised", "reason", "tries"), [(Reject("no such network"), "rejected", 1), (None, "exhausted", 3)]
)
async def test_what_is_given_up_becomes_a_dead_letter_with_its_bytes_untouched(
    raised: Exception | None, reason: str, tries: int
) -> None:
    """A dead letter says why, and the stream goes on."""
    kind, group, seen = unique(), unique(), []

    @consumer(group=group, types=[kind], retry=AT_ONCE)
    async def handler(event: Event) -> None:
        if event.data["n"] == 0:
            raise raised or ValueError("m" * 2 * MESSAGE_LIMIT)
        seen.append(event.data["n"])

    async with Running() as here, here.bus.running(handler):
        written = body(0, kind, unknown="é kept")
        (entry_id,) = await here.append(kind, written)
        await here.publish(kind, 1)
        announced = await here.recorder.wait_for_one(EntryDeadLettered)
        await eventually(lambda: seen == [1])
        (letter,) = await here.dead_letters(kind, group)
        await here.recorder.wait_for(lambda _: acked(here) == 1)
        assert await here.pending(kind, group) == {}
    assert letter.fields == [b"data", written]
    assert (letter.entry_id, letter.reason, letter.tries) == (entry_id, reason, tries)
    assert letter.error == ("Reject" if raised else "ValueError")
    assert letter.message == ("no such network" if raised else "m" * MESSAGE_LIMIT)
    assert "Traceback" in letter.trace or len(letter.trace) == TRACE_LIMIT
    assert 0 < letter.first_time <= letter.last_time
    assert (announced.reason, announced.stream, announced.group) == (reason, f"events:{kind}", group)


@pytest.mark.parametrize("batch", [None, 10])
async def test_what_cannot_be_read_becomes_a_dead_letter_and_its_neighbours_are_handled(batch: int | None) -> None:
    """Broken JSON, a missing field, an unknown codec: each is told apart, none reaches the handler."""
    group, seen = unique(), []

    async def take(events: list[Any]) -> None:
        seen.extend(event.data.n for event in events)

    if batch is None:

        @consumer(group=group)
        async def handler(event: Event[Counted]) -> None:
            await take([event])

    else:

        @consumer(group=group, batch=batch)
        async def handler(events: list[Event[Counted]]) -> None:
            await take(events)

    kind = "runtime_test.counted"
    broken = [b"not json", b'{"data": {}}', body(1, kind)[:-1] + b', "data": {"n": "x"}}', b"\xff"]
    async with Running() as here:
        await here.append(kind, broken[0], body(1, kind), *broken[1:], body(2, kind))
        from hyperbus.transport import NewEntry

        await here.memory.streams.append([NewEntry(f"events:{kind}", b"other", b"x")])
        async with here.bus.running(handler):
            await here.recorder.wait_for(lambda _: len(here.recorder.of(EntryDeadLettered)) == 5)
            await eventually(lambda: len(seen) == 2)
        letters = await here.dead_letters(kind, group)
    assert seen == [1, 2]
    assert [letter.fields for letter in letters] == [*([b"data", b] for b in broken), [b"other", b"x"]]
    assert {letter.reason for letter in letters} == {"undecodable"}
    assert "data" in letters[-1].message


async def test_a_batch_of_nothing_that_can_be_read_calls_no_handler() -> None:
    """The handler sees no empty list."""
    kind, calls = unique(), []

    @consumer(group=unique(), types=[kind], batch=5)
    async def handler(events: list[Event]) -> None:
        calls.append(events)

    async with Running() as here, here.bus.running(handler):
        await here.append(kind, b"broken")
        await here.recorder.wait_for_one(EntryDeadLettered)
    assert calls == []


async def test_a_failed_batch_is_tried_again_one_by_one() -> None:
    """One bad event makes its batch fail once, and then only itself."""
    kind, group, batches = unique(), unique(), []

    @consumer(group=group, types=[kind], batch=4, retry=AT_ONCE)
    async def handler(events: list[Event]) -> None:
        numbers = [event.data["n"] for event in events]
        batches.append(numbers)
        if 2 in numbers:
            raise ValueError

    async with Running() as here:
        await here.publish(kind, 0, 1, 2, 3)
        async with here.bus.running(handler):
            await here.recorder.wait_for(lambda _: acked(here) == 3 and here.recorder.of(EntryDeadLettered))
        (letter,) = await here.dead_letters(kind, group)
    assert batches[0] == [0, 1, 2, 3]
    assert sorted(batches[1:]) == [[0], [1], [2], [2], [3]]
    assert (letter.reason, letter.tries) == ("exhausted", 3)


async def test_a_batch_may_end_differently_for_each_event() -> None:
    """One outcome an event: done, again, given up."""
    kind, group, batches = unique(), unique(), []

    @consumer(group=group, types=[kind], batch=3, retry=AT_ONCE)
    async def handler(events: list[Event]) -> list[BaseException | None]:
        batches.append([event.data["n"] for event in events])
        if len(batches) == 1:
            return [None, Retry(after=0), Reject("never")]
        return [None]

    async with Running() as here:
        await here.publish(kind, 0, 1, 2)
        async with here.bus.running(handler):
            await here.recorder.wait_for(lambda _: acked(here) == 2 and here.recorder.of(EntryDeadLettered))
        (letter,) = await here.dead_letters(kind, group)
    assert batches == [[0, 1, 2], [1]]
    assert (letter.reason, letter.message) == ("rejected", "never")


@pytest.mark.parametrize("returned", [[None], ["done", "done"], 5])
async def test_outcomes_that_make_no_sense_fail_the_batch(returned: Any) -> None:
    """The error says what a batch handler may return."""
    kind, group = unique(), unique()

    @consumer(group=group, types=[kind], batch=2, retry=Backoff(tries=1))
    async def handler(events: list[Event]) -> Any:
        return returned

    async with Running() as here:
        await here.publish(kind, 0, 1)
        async with here.bus.running(handler):
            await here.recorder.wait_for(lambda _: len(here.recorder.of(EntryDeadLettered)) == 2)
        letters = await here.dead_letters(kind, group)
    assert {letter.error for letter in letters} == {"DeclarationError"}
    assert "one outcome an event" in letters[0].message


async def test_acked_when_received_is_at_most_once() -> None:
    """The ack is on the server before the handler begins; a failure is never tried again."""
    kind, group, seen = unique(), unique(), []
    here = Running()

    @consumer(group=group, types=[kind], ack="received")
    async def handler(event: Event) -> None:
        seen.append((event.data["n"], await here.pending(kind, group)))
        raise ValueError

    async with here, here.bus.running(handler):
        await here.publish(kind, 0)
        await eventually(lambda: len(seen) == 1)
        await here.publish(kind, 1)
        await eventually(lambda: len(seen) == 2)
        await here.append(kind, b"broken")
        assert (await here.recorder.wait_for_one(EntryDeadLettered)).reason == "undecodable"
    assert seen == [(0, {}), (1, {})]
    assert here.recorder.of(RetryScheduled) == []


@pytest.mark.parametrize("batch", [None, 5])
async def test_an_ack_before_the_handler_waits_for_the_server(batch: int | None) -> None:
    """Without the ack there is no handling; a stream that is none any more is no reason to stop."""
    kind, seen, asked = unique(), [], []

    async def fails(ack: Any, acks: Any) -> Any:
        asked.append(seen.copy())
        if len(asked) == 1:
            raise BusUnavailable("away")
        if len(asked) == 2:
            return await ack(acks)
        raise WrongTypeError("no stream")

    if batch is None:

        @consumer(group=unique(), types=[kind], ack="received")
        async def handler(event: Event) -> None:
            seen.append(event.data["n"])

    else:

        @consumer(group=unique(), types=[kind], ack="received", batch=batch)
        async def handler(events: list[Event]) -> None:
            seen.extend(event.data["n"] for event in events)

    async with Running() as here, here.bus.running(handler):
        here.transport.streams.overrides["ack"] = fails
        await here.publish(kind, 0)
        await eventually(lambda: seen == [0])
        await here.publish(kind, 1)
        await eventually(lambda: seen == [0, 1])
    assert asked == [[], [], [0]]


async def test_acks_are_asked_for_until_they_are_answered() -> None:
    """An outage delays acks; what is gathered meanwhile goes out together."""
    kind, left = unique(), [2]

    async def away(ack: Any, acks: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise BusUnavailable("away")
        return await ack(acks)

    @consumer(group=unique(), types=[kind])
    async def handler(event: Event) -> None: ...

    async with Running() as here, here.bus.running(handler):
        here.transport.streams.overrides["ack"] = away
        await here.publish(kind, *range(5))
        await here.recorder.wait_for(lambda _: acked(here) == 5)
        assert len(here.transport.streams.called("ack")) <= 4


async def test_a_stream_that_cannot_be_acked_keeps_no_other_from_it() -> None:
    """The server refuses one of two streams: the other one's ack is taken."""
    first, second, group = unique(), unique(), unique()
    ended = asyncio.Event()

    async def refuses(ack: Any, acks: Any) -> Any:
        if any(stream == f"events:{first}" for stream, _, _ in acks):
            raise WrongTypeError("no stream")
        return await ack(acks)

    @consumer(group=group, types=[first, second], batch=10, linger=0.05)
    async def handler(events: list[Event]) -> None:
        if len(events) == 2:
            ended.set()

    async with Running() as here:
        await here.publish(first, 0)
        await here.publish(second, 0)
        here.transport.streams.overrides["ack"] = refuses
        async with here.bus.running(handler):
            await asyncio.wait_for(ended.wait(), 2)
            await here.recorder.wait_for(lambda _: acked(here) == 1)
            assert await here.pending(second, group) == {}


async def test_a_dead_letter_waits_for_the_server_and_blocks_nobody_for_good() -> None:
    """Away and full are waited for, and a key of theirs that holds something else."""
    kind, group, errors = unique(), unique(), [BusUnavailable("away"), OutOfMemoryError("full")]

    async def fails(dead_letter: Any, *arguments: Any) -> Any:
        if errors:
            raise errors.pop(0)
        return await dead_letter(*arguments)

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        raise Reject("no")

    async with Running() as here, here.bus.running(handler):
        here.transport.streams.overrides["dead_letter"] = fails
        await here.publish(kind, 0)
        await here.recorder.wait_for_one(EntryDeadLettered)

        errors.append(WrongTypeError("what lies at the key of the dead letters is no stream"))
        await here.publish(kind, 1, 2)
        await here.recorder.wait_for(lambda _: len(here.recorder.of(EntryDeadLettered)) == 3)
        assert len(await here.dead_letters(kind, group)) == 3


async def test_a_full_server_does_not_keep_a_worker_from_stopping() -> None:
    """A dead letter that cannot be written stays pending, and the drain goes on."""
    kind, group = unique(), unique()
    asked = asyncio.Event()

    async def full(*_: Any) -> Any:
        asked.set()
        raise OutOfMemoryError("full")

    @consumer(group=group, types=[kind])
    async def handler(event: Event) -> None:
        raise Reject("no")

    async with Running() as here:
        here.transport.streams.overrides["dead_letter"] = full
        async with here.bus.running(handler):
            await here.publish(kind, 0)
            await asyncio.wait_for(asked.wait(), 2)
        assert len(await here.pending(kind, group)) == 1
