"""What type checkers have to know of the public API. Checked by mypy and pyright, both strict; never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, assert_type

from hyperbus import (
    Backoff,
    Bus,
    BusUnavailable,
    Consumer,
    Delivery,
    Event,
    EventData,
    HyperbusError,
    PublishFailed,
    PublishUncertain,
    Reject,
    Retry,
    SyncPublisher,
    consumer,
)


class WorkflowStarted(EventData, type="workflow.started"):
    contract: str
    network: str = "testnet"


class WorkflowEnded(EventData, type="workflow.ended", kw_only=True):
    contract: str


class Shared(EventData):
    contract: str


# -- events

started = WorkflowStarted(contract="ERC20")
assert_type(started.contract, str)
assert_type(started.network, str)
WorkflowStarted(contract=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
WorkflowStarted()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

event = Event(data=started, workflow_id="wf-1")
assert_type(event, Event[WorkflowStarted])
assert_type(event.data.contract, str)
assert_type(event.id, str)
assert_type(event.type, str)
assert_type(event.timestamp, datetime)
assert_type(event.workflow_id, str | None)
assert_type(event.version, int | None)
assert_type(event.deadline, datetime | None)
Event(workflow_id="wf-1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Event(data=started, workflow="wf-1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def bare(any_event: Event) -> None:
    assert_type(any_event, Event[Any])
    assert_type(any_event.data, Any)


# -- consumers


@consumer(group="billing")
async def bill(event: Event[WorkflowStarted]) -> None:
    assert_type(event.data.network, str)


@consumer(types=["workflow.*", WorkflowEnded])
def plain(event: Event, delivery: Delivery) -> str:
    return delivery.entry_id


@consumer()
async def either(event: Event[WorkflowStarted] | Event[WorkflowEnded]) -> None:
    assert_type(event.data, WorkflowStarted | WorkflowEnded)


@consumer(group="rollups", types=["*"], batch=500, linger=0.05, start_from="new")
async def roll_up(events: list[Event]) -> None:
    assert_type(events[0], Event[Any])


@consumer(group="db_writers", concurrency=32, retry=Backoff(initial=0.2, factor=2, maximum=30, tries=8, jitter=0))
class DbWriter(Consumer):
    def __init__(self, pool: str) -> None:
        self.pool = pool

    async def start(self) -> None:
        await super().start()

    async def handle(self, event: Event[WorkflowStarted], delivery: Delivery) -> None:
        if event.data.contract == "bad":
            raise Reject("no such network")
        if delivery.tries < 3:
            raise Retry(after=5)
        assert_type(await delivery.publish(WorkflowEnded(contract="ERC20")), str)
        assert_type(await delivery.publish(Event(data=WorkflowEnded(contract="ERC20"))), str)

    async def stop(self) -> None:
        await super().stop()


@consumer(audience="every_process", ack="handled", types=["workflow.*"])
class Small(Consumer):
    async def handle(self, event: Event) -> None:
        raise Retry


consumer(audience="everywhere")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
consumer(ack="sometimes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
consumer(types=[3])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


async def decorating_changes_no_type() -> None:
    assert_type(await bill(event), None)
    assert_type(plain(event, delivery_of(event)), str)
    assert_type(DbWriter("pool").pool, str)
    await bill(started)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    DbWriter()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def delivery_of(event: Event) -> Delivery:
    async def publish(event: Event, /, *, once: bool = False, durability: str | None = None) -> str:
        return event.id

    return Delivery(
        entry_id="1-0", stream="s", group="g", consumer="c", tries=1, body=b"", event=event, publish_event=publish
    )


def publishes_from_a_thread(event: Event, delivery: Delivery) -> None:
    assert_type(delivery.publish_blocking(started), str)


async def publishes(bus: Bus, delivery: Delivery) -> None:
    assert_type(await bus.publish(started), str)
    assert_type(await bus.publish_many([started]), list[str])
    assert_type(await delivery.publish(started), str)
    bus.publish(started)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    delivery.publish(started)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


# -- middleware


async def timed(event: Any, delivery: Any, call_next: Any) -> Any:
    return await call_next(event, delivery)


consumer(types=["a"], middleware=[timed])
consumer(types=["a"], middleware=[3])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


# -- the bus


async def on_done(event: Event) -> None: ...


def on_done_plainly(event: Event[WorkflowEnded]) -> None: ...


async def publish() -> None:
    async with Bus("redis://localhost:6379/0", source_agent="coordinator", prefix="events", fallback="memory") as bus:
        assert_type(bus, Bus)
        assert_type(await bus.publish(started, workflow_id="wf-1", correlation_id="c", source_agent="a"), str)
        assert_type(await bus.publish(event, timeout=1.5), str)
        assert_type(await bus.publish_many([started, event, WorkflowEnded(contract="ERC20")]), list[str])
        bus.on_publish("workflow.*", on_done)
        bus.on_publish("workflow.ended", on_done_plainly)
        await bus.publish("workflow.started")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await bus.publish({"contract": "ERC20"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def consume(bus: Bus) -> None:
    assert_type(bus.consume(WorkflowStarted, group="g"), AsyncIterator[Event[WorkflowStarted]])
    async for one in bus.consume(WorkflowStarted, group="live_view", start_from="new"):
        assert_type(one.data.contract, str)
    async for mixed in bus.consume("x.*", WorkflowStarted, group="g"):
        assert_type(mixed, Event[Any])
    async for read in bus.read("workflow.*", after="1700000000000-0"):
        assert_type(read, Event[Any])
    async for typed in bus.read(WorkflowStarted):
        assert_type(typed, Event[WorkflowStarted])
    bus.consume(WorkflowStarted)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def run(bus: Bus) -> None:
    async with bus.running(bill, DbWriter("pool")) as running:
        assert_type(running, None)
    assert_type(await bus.run(bill, Small), None)


def publish_without_a_loop() -> None:
    with SyncPublisher("redis://localhost:6379/0", source_agent="script") as publisher:
        assert_type(publisher, SyncPublisher)
        assert_type(publisher.publish(started, workflow_id="wf-1"), str)
        assert_type(publisher.publish_many([started, event]), list[str])


# -- errors


async def errors(bus: Bus) -> None:
    try:
        await bus.publish_many([started])
    except PublishFailed as error:
        assert_type(error.results, tuple[str | HyperbusError, ...])
    except (BusUnavailable, PublishUncertain) as error:
        assert_type(error.exit_code, int)
