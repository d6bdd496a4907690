"""Found by use: events that are published without a word, and that no consumer can read."""

from __future__ import annotations

import asyncio
import enum
import json
import math
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

import msgspec
import pytest

from hyperbus import Bus, Event, EventData, HyperbusError, PublishFailed, consumer
from hyperbus.settings import Settings
from hyperbus.signals import EntryDeadLettered
from tests.recorder import Recorder
from tests.unit.runtime.running import Running, unique

INF, NAN = math.inf, math.nan


class Side(enum.Enum):
    BUY = "buy"


class Leg(msgspec.Struct):
    amount: float
    unit: str = "EUR"


class Priced(EventData, type="found.priced"):
    value: float
    maybe: float | None = None
    positive: Annotated[int, msgspec.Meta(gt=0)] = 1
    leg: Leg | None = None
    legs: list[Leg] = msgspec.field(default_factory=list)
    by_name: dict[str, float] = msgspec.field(default_factory=dict)
    tags: set[str] = msgspec.field(default_factory=set)
    anything: Any = None
    side: Side = Side.BUY
    at: datetime | None = None
    key: UUID | None = None
    number: int = 0


UNREADABLE: dict[str, Any] = {
    "nan": Priced(value=NAN),
    "infinity": Priced(value=INF),
    "minus infinity": Priced(value=-INF),
    "nan where None may be": Priced(value=1.0, maybe=NAN),
    "nan inside": Priced(value=1.0, legs=[Leg(1.0), Leg(INF)]),
    "nan in a dict": Priced(value=1.0, by_name={"a": NAN}),
    "nan in anything": Priced(value=1.0, anything=[{"deep": (1.0, NAN)}]),
    "nan without a class": Event(type="found.untyped", data={"value": NAN}),
    "text for a number": Priced(value="12"),  # type: ignore[arg-type]
    "a bool for a number": Priced(value=True),
    "none for a number": Priced(value=None),  # type: ignore[arg-type]
    "a bound": Priced(value=1.0, positive=0),
    "a struct inside": Priced(value=1.0, leg=Leg(amount="1")),  # type: ignore[arg-type]
    "a struct in a list": Priced(value=1.0, legs=[Leg(1.0), Leg(1.0, unit=None)]),  # type: ignore[arg-type]
    "a value in a dict": Priced(value=1.0, by_name={"a": "b"}),  # type: ignore[dict-item]
    "a key of a dict": Priced(value=1.0, by_name={("a", "b"): 1.0}),  # type: ignore[dict-item]
    "an item of a set": Priced(value=1.0, tags={1}),  # type: ignore[arg-type]
    "half a character": Priced(value=1.0, anything="\ud800"),
    "a dict for a class": Event(type="found.priced", data={"value": "12"}),
    "a dict that lacks a field": Event(type="found.priced", data={"maybe": 1.0}),
    "no object at all": Event(type="found.untyped", data=[1, 2]),
    "a workflow id that is no text": Event(data=Priced(value=1.0), workflow_id=12),  # type: ignore[arg-type]
    "a time that is none": Event(data=Priced(value=1.0), timestamp="yesterday"),  # type: ignore[arg-type]
    "a version that is none": Event(data=Priced(value=1.0), version="two"),  # type: ignore[arg-type]
}
READABLE: dict[str, Any] = {
    "whole numbers for real ones": Priced(value=12),
    "a number of more than 64 bits": Priced(value=1.0, number=2**70, anything={"n": -(2**90)}),
    "everything": Priced(
        value=-1.5e300,
        maybe=0.0,
        positive=2**62,
        leg=Leg(1.0),
        legs=[Leg(2.0)],
        by_name={"a": 1.0},
        tags={"x"},
        anything={"null": None, "list": [1, "null"]},
        at=datetime.now(UTC),
        key=uuid4(),
        number=-(2**63),
    ),
    "a list for a set": Priced(value=1.0, tags=["x"]),  # type: ignore[arg-type]
    "a dict for its class": Event(type="found.priced", data={"value": 1.0, "unknown": 1}),
    "an object without a class": Event(type="found.untyped", data={"null": None, "list": [None]}),
    "a time without a zone": Event(data=Priced(value=1.0), timestamp=datetime(2026, 1, 1)),  # noqa: DTZ001
}


@pytest.mark.parametrize("what", UNREADABLE)
async def test_what_no_consumer_could_read_is_refused_before_it_is_sent(what: str) -> None:
    """One at a time and among others: one line, and nothing in the stream."""
    event = UNREADABLE[what]
    async with Running() as here:
        with pytest.raises(HyperbusError) as refused:
            await here.bus.publish(event)
        assert "\n" not in str(refused.value)
        with pytest.raises(PublishFailed) as failed:
            await here.bus.publish_many([Priced(value=1.0), event, Priced(value=2.0)])
        assert [isinstance(result, str) for result in failed.value.results] == [True, False, True]
        (info,) = await here.transport.streams.info(["events:found.priced"])
        assert info is not None
        assert info.length == 2
        assert await here.transport.streams.info(["events:found.untyped"]) == [None]


async def test_a_number_that_is_none_is_named() -> None:
    """The message says which field, and what can be done."""
    async with Running() as here:
        with pytest.raises(HyperbusError, match=r"data\.legs\[1\]\.amount.*float \| None"):
            await here.bus.publish(UNREADABLE["nan inside"])
        with pytest.raises(HyperbusError, match=r"workflow_id"):
            await here.bus.publish(Priced(value=1.0), workflow_id=12)  # type: ignore[arg-type]


@pytest.mark.parametrize("what", READABLE)
async def test_what_consumers_read_is_published(what: str) -> None:
    """And reaches a typed group."""
    event, seen = READABLE[what], []

    @consumer(group=unique(), types=["found.priced", "found.untyped"])
    async def sees(event: Event) -> None:
        seen.append(event)

    async with Running() as here, here.bus.running(sees):
        await here.bus.publish_many([event, event])
        await here.bus.publish(event)
        async with asyncio.timeout(10):
            while len(seen) < 3:
                await asyncio.sleep(0.005)
        assert here.recorder.of(EntryDeadLettered) == []


async def test_messagepack_holds_what_json_cannot() -> None:
    """NaN is a number there; what does not fit is refused all the same."""
    async with Bus("memory://", settings=Settings(codec="msgpack")) as bus:
        await bus.publish(Priced(value=NAN, maybe=INF))
        with pytest.raises(HyperbusError):
            await bus.publish(Priced(value="12"))  # type: ignore[arg-type]


async def test_who_has_checked_already_can_do_without() -> None:
    """`check_events=false` sends what it is given."""
    async with Bus("memory://", settings=Settings(check_events=False)) as bus:
        await bus.publish(Priced(value="12"))  # type: ignore[arg-type]
        await bus.publish_many([Priced(value=NAN)])


async def test_a_class_that_is_defined_again_is_checked_as_it_is_now() -> None:
    """As notebooks and reloads do it."""

    def define(kind: Any) -> type[EventData]:
        class Again(EventData, type="found.again"):
            __annotations__ = {"value": kind}

        return Again

    async with Bus("memory://", settings=Settings()) as bus:
        await bus.publish(define(int)(value=1))  # type: ignore[call-arg]
        await bus.publish(define(str)(value="one"))  # type: ignore[call-arg]
        with pytest.raises(HyperbusError):
            await bus.publish(define(int)(value="one"))  # type: ignore[call-arg]


@pytest.mark.parametrize("old", [{}, {"amount": 1}, {"value": None}], ids=["without", "renamed", "none"])
async def test_entries_from_before_a_field_was_renamed_name_it(old: dict[str, Any]) -> None:
    """Their dead letter says which field is wrong, and what can be done when it is missing."""
    recorded = Recorder()

    @consumer(group=unique())
    async def reads(event: Event[Priced]) -> None: ...

    async with Running() as here:
        here.bus._announcer.add(recorded)
        entry = {"id": "1", "type": "found.priced", "timestamp": "2026-01-01T00:00:00Z", "data": old}
        async with here.bus.running(reads):
            await here.append("found.priced", json.dumps(entry).encode())
            dead = await recorded.wait_for_one(EntryDeadLettered)
    assert dead.reason == "undecodable"
    assert "value" in dead.message
    if "value" not in old:
        assert "default" in dead.message
        assert "Priced" in dead.message
