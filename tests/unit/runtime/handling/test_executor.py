"""How handlers are called: shapes, classes, threads, concurrency, middleware, what leaks and what does not."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest

from hyperbus import Backoff, BusUnavailable, Consumer, Delivery, Event, EventData, HyperbusError, consumer
from hyperbus.errors import DeclarationError, DuplicateTypeError
from hyperbus.runtime.handling import settlement as settling
from hyperbus.signals import Acknowledged, Handled, WorkerChanged
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique

AT_ONCE = Backoff(initial=0, tries=3)


class Typed(EventData, type="runtime_test.typed"):
    n: int


async def test_a_handler_gets_each_event_once_and_in_order() -> None:
    """Typed data arrives as its class; what is done is acked."""
    seen: list[Any] = []

    @consumer(group=unique())
    async def handler(event: Event[Typed]) -> None:
        seen.append(event.data)

    async with Running() as here, here.bus.running(handler):
        for n in range(5):
            await here.bus.publish(Typed(n=n))
        await here.recorder.wait_for(lambda _: sum(s.count for s in here.recorder.of(Acknowledged)) == 5)
        assert seen == [Typed(n=n) for n in range(5)]
        assert await here.pending("runtime_test.typed", handler.__hyperbus_declaration__.group) == {}
    states = [signal.state for signal in here.recorder.of(WorkerChanged)]
    assert states == ["started", "draining", "stopped"]
    assert sum(sum(signal.acked.values()) for signal in here.recorder.of(Handled)) == 5


async def test_a_class_starts_and_stops_once() -> None:
    """`start` comes before the first event, `stop` after the last one; an instance works as well as its class."""
    kind, seen = unique(), []

    @consumer(group=unique(), types=[kind])
    class Writer(Consumer):
        async def start(self) -> None:
            seen.append("start")

        async def handle(self, event: Event, delivery: Delivery) -> None:
            seen.append((event.data["n"], delivery.tries, delivery.stream))

        async def stop(self) -> None:
            seen.append("stop")

    for declared in (Writer, Writer()):
        seen.clear()
        async with Running() as here:
            await here.publish(kind, 1)
            async with here.bus.running(declared):
                await eventually(lambda: len(seen) == 2)
        assert seen == ["start", (1, 1, f"events:{kind}"), "stop"]


async def test_a_start_that_fails_fails_the_run() -> None:
    """The error reaches whoever runs the consumers, not wrapped in a group."""

    @consumer(group=unique(), types=["x"])
    class Broken(Consumer):
        async def start(self) -> None:
            raise ZeroDivisionError

        async def handle(self, event: Event) -> None: ...

    async with Running() as here:
        with pytest.raises(ZeroDivisionError):
            async with here.bus.running(Broken):
                pytest.fail("it never becomes ready")


async def test_a_plain_function_runs_in_a_bounded_pool_of_threads() -> None:
    """Blocking code blocks no event loop; no more threads than asked for; context variables come along."""
    kind, threads, most = unique(), set(), []
    lock = threading.Lock()
    running = [0]

    @consumer(group=unique(), types=[kind], concurrency=8, thread_limit=2)
    def handler(event: Event, delivery: Delivery) -> None:
        with lock:
            running[0] += 1
            most.append(running[0])
        threads.add(threading.current_thread().name)
        time.sleep(0.01)
        with lock:
            running[0] -= 1

    async with Running() as here, here.bus.running(handler):
        await here.publish(kind, *range(10))
        await eventually(lambda: len(most) == 10 and running[0] == 0)
    assert max(most) == 2
    assert len(threads) == 2
    assert threading.current_thread().name not in threads


async def test_concurrency_is_real_and_bounded() -> None:
    """As many handlers run side by side as were asked for, and never more."""
    kind, running, most, release = unique(), [0], [0], asyncio.Event()

    @consumer(group=unique(), types=[kind], concurrency=4)
    async def handler(event: Event) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        await release.wait()
        running[0] -= 1

    async with Running() as here, here.bus.running(handler):
        await here.publish(kind, *range(12))
        await eventually(lambda: running[0] == 4)
        release.set()
        await here.recorder.wait_for(lambda _: sum(s.count for s in here.recorder.of(Acknowledged)) == 12)
    assert most[0] == 4


async def test_a_lane_lets_the_process_run_between_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that never waits does not keep the event loop for itself, and its counts are told."""
    monkeypatch.setattr(settling, "TELLING", 0.0)
    kind = unique()

    @consumer(group=unique(), types=[kind])
    async def handler(event: Event) -> None: ...

    async with Running() as here:
        await here.publish(kind, *range(5000))
        async with here.bus.running(handler):
            await here.recorder.wait_for(
                lambda _: sum(sum(s.acked.values()) for s in here.recorder.of(Handled)) == 5000
            )
        assert len(here.recorder.of(Handled)) >= 3


async def test_counts_of_slow_handlers_are_told_in_time() -> None:
    """With a backlog, a handler that takes its time is heard of long before it has handled a hundred."""
    kind = unique()

    @consumer(group=unique(), types=[kind])
    async def handler(event: Event) -> None:
        await asyncio.sleep(0.3)

    async with Running(drain_timeout=0.01) as here:
        await here.publish(kind, *range(20))
        async with here.bus.running(handler):
            await here.recorder.wait_for_one(Handled)


async def test_middleware_wraps_the_handler_the_first_outermost() -> None:
    """It sees event and delivery, and may stop a call."""
    kind, seen = unique(), []

    def layer(name: str) -> Any:
        async def middleware(event: Any, delivery: Any, call_next: Any) -> Any:
            seen.append(f"{name} before {delivery.tries}")
            if event.data["n"] == 2 and name == "inner":
                return None
            try:
                return await call_next(event, delivery)
            finally:
                seen.append(f"{name} after")

        return middleware

    @consumer(group=unique(), types=[kind], middleware=[layer("outer"), layer("inner")])
    async def handler(event: Event) -> None:
        seen.append(f"handler {event.data['n']}")

    async with Running() as here, here.bus.running(handler):
        await here.publish(kind, 1, 2)
        await here.recorder.wait_for(lambda _: sum(s.count for s in here.recorder.of(Acknowledged)) == 2)
    assert seen == [
        *("outer before 1", "inner before 1", "handler 1", "inner after", "outer after"),
        *("outer before 1", "inner before 1", "outer after"),
    ]


async def test_what_a_delivery_publishes_inherits_from_its_event() -> None:
    """Workflow and correlation come from the cause, unless the new event has its own."""
    kind, caused = unique(), unique()
    results: list[Event] = []

    @consumer(group=unique(), types=[kind])
    async def first(event: Event, delivery: Delivery) -> None:
        await delivery.publish(Event(type=caused, data={}))
        await delivery.publish(Event(type=caused, data={}, workflow_id="own", correlation_id="own"))

    @consumer(group=unique(), types=[caused])
    async def second(event: Event) -> None:
        results.append(event)

    async with Running() as here, here.bus.running(first, second):
        cause = Event(type=kind, data={}, workflow_id="w")
        await here.bus.publish(cause)
        await eventually(lambda: len(results) == 2)
    assert [(e.workflow_id, e.correlation_id, e.causation_id) for e in results] == [
        ("w", cause.id, cause.id),
        ("own", "own", cause.id),
    ]


async def test_a_batch_is_filled_up_to_its_size_and_no_longer_than_it_may_linger() -> None:
    """Lists come in order, and a batch that does not fill is handed over when its time is up."""
    kind, batches = unique(), []

    @consumer(group=unique(), types=[kind], batch=3, linger=0.05)
    async def handler(events: list[Event], deliveries: list[Delivery]) -> None:
        assert len(events) == len(deliveries)
        batches.append([event.data["n"] for event in events])

    async with Running() as here:
        await here.publish(kind, *range(7))
        async with here.bus.running(handler):
            await eventually(lambda: len(batches) == 3)
            await here.publish(kind, 7)
            await here.publish(kind, 8)
            await eventually(lambda: len(batches) == 4)
    assert batches == [[0, 1, 2], [3, 4, 5], [6], [7, 8]]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")


@pytest.mark.parametrize("batch", [None, 1])
async def test_context_variables_do_not_leak_into_the_next_delivery(batch: int | None) -> None:
    """A handler that leaves a variable behind leaves it to nobody."""
    kind, seen = unique(), []

    async def leaves() -> None:
        seen.append(variable.get())
        variable.set("dirty")

    if batch is None:

        @consumer(group=unique(), types=[kind])
        async def handler(event: Event) -> None:
            await leaves()

    else:

        @consumer(group=unique(), types=[kind], batch=batch)
        async def handler(events: list[Event]) -> None:
            await leaves()

    async with Running() as here, here.bus.running(handler):
        await here.publish(kind, 1, 2, 3)
        await eventually(lambda: len(seen) == 3)
    assert seen == ["clean"] * 3


async def test_handlers_may_use_timeouts_task_groups_and_their_own_task() -> None:
    """A handler runs inside a real task, and a timeout or cancelled scope ends with its delivery."""
    kind, seen = unique(), []

    @consumer(group=unique(), types=[kind], retry=AT_ONCE)
    async def handler(event: Event, delivery: Delivery) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        n = event.data["n"]
        if n == 0:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                seen.append("timeout")
        if n == 1:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.sleep(0))
            seen.append("group")
        if n == 2 and delivery.tries == 1:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        if n == 2:
            seen.append("again")

    async with Running() as here, here.bus.running(handler):
        await here.publish(kind, 0, 1, 2)
        await eventually(lambda: len(seen) == 3)
    assert seen == ["timeout", "group", "again"]


@pytest.mark.parametrize("how", ["raises", "cancels itself and waits", "cancels itself and returns"])
async def test_a_handler_that_cancels_itself_harms_no_other_delivery(how: str) -> None:
    """A CancelledError of the handler's own making is a failure like any other; the worker goes on."""
    kind, seen = unique(), []

    @consumer(group=unique(), types=[kind], retry=AT_ONCE)
    async def handler(event: Event, delivery: Delivery) -> None:
        seen.append((event.data["n"], delivery.tries))
        if event.data["n"] == 0 and delivery.tries == 1:
            if how == "raises":
                raise asyncio.CancelledError
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            if how == "cancels itself and waits":
                await asyncio.sleep(1)

    async with Running() as here, here.bus.running(handler):
        await here.publish(kind, 0)
        await here.publish(kind, 1)
        await here.recorder.wait_for(lambda _: sum(s.count for s in here.recorder.of(Acknowledged)) == 2)
    tries = 1 if how == "cancels itself and returns" else 2
    assert sorted(seen) == sorted([(0, n) for n in range(1, tries + 1)] + [(1, 1)])


async def test_declarations_that_cannot_run_together_are_refused() -> None:
    """Overlapping types in one group, and what is no consumer at all."""

    @consumer(group="same_group", types=["a.*"])
    async def first(event: Event) -> None: ...

    @consumer(group="same_group", types=["a.b"])
    async def second(event: Event) -> None: ...

    async with Running() as here:
        with pytest.raises(DeclarationError, match="overlapping"):
            async with here.bus.running(first, second):
                pass
        with pytest.raises(DeclarationError, match="not a consumer"):
            async with here.bus.running(object()):
                pass


async def test_two_classes_with_one_type_are_refused_at_the_start() -> None:
    """The message names both classes."""

    class One(EventData, type="runtime_test.twice"): ...

    class Two(EventData, type="runtime_test.twice"): ...

    try:
        with pytest.raises(DuplicateTypeError, match=r"One.*Two|Two.*One"):
            async with Running():
                pass
    finally:
        One.event_type = Two.event_type = None  # somebody may still hold them when the next bus opens


async def test_consumers_need_an_open_bus() -> None:
    """Before the bus opens and after it closes, running, reading and consuming say so."""

    @consumer(group=unique(), types=["x"])
    async def handler(event: Event) -> None: ...

    here = Running()
    for _ in range(2):
        for loop in (here.bus.read("x"), here.bus.consume("x", group="x")):
            with pytest.raises(BusUnavailable, match="not open"):
                await anext(aiter(loop))
        with pytest.raises(BusUnavailable, match="not open"):
            async with here.bus.running(handler):
                pass
        with pytest.raises(BusUnavailable, match="not open"):
            _ = here.bus.transport
        async with here, here.bus.running(handler):
            assert here.bus.transport is here.transport
            assert here.bus.prefix == "events"


async def test_a_worker_that_fails_ends_the_body_with_its_error() -> None:
    """Code that runs beside consumers does not go on without them."""

    @consumer(group=unique(), types=["x"])
    async def handler(event: Event) -> None: ...

    here = Running()

    async def breaks(*_: Any, **__: Any) -> Any:
        raise HyperbusError("broken")

    here.transport.reader_overrides["read_group"] = breaks
    async with here:
        with pytest.raises(HyperbusError, match="broken"):
            async with here.bus.running(handler):
                await asyncio.Event().wait()
