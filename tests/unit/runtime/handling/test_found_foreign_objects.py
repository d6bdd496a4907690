"""What a user's code or a foreign entry brings is looked at where a failure of looking costs that delivery, and no more."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any, ClassVar, cast

import msgspec
import pytest

from hyperbus import Backoff, Event, EventData, Retry, consumer
from hyperbus.transport import NewEntry
from tests.recorder import eventually
from tests.unit.runtime.running import Running, body, unique
from tests.unit.runtime.shapes import SHAPES, TWICE, Works, dead_letters, declared, goes_on


class Found(EventData, type="found.foreign"):
    n: int


# -- times


TIMES = [
    "0001-01-01T00:00:00", "9999-12-31T23:59:59.999999-23:59", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59",
    "0001-01-01T00:00:00Z", "1969-12-31T23:59:59",
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_event_of_an_odd_time_is_handled(shape: str) -> None:
    """The default date of .NET, and the ends of the calendar: how old such an event is harms nobody."""
    works = Works(lambda kind, seen: declared(kind, lambda event: seen.append(event.data["n"]), shape))
    odd = [body(n, works.kind, timestamp=time) for n, time in enumerate(TIMES)]
    assert await works.letters_after(*odd, dead=0) == []
    assert set(works.seen) >= set(range(len(TIMES)))


@pytest.mark.parametrize("shape", ["one by one", "with delivery", "batch", "thread", "in order"])
@pytest.mark.parametrize("fails", [False, True])
async def test_an_event_that_its_handler_took_apart_is_accounted_for(shape: str, fails: bool) -> None:
    """It is the handler's to change; what the bus needs of it was looked at before."""

    def take_apart(event: Event, seen: list[int]) -> None:
        n = event.data["n"]
        if n == 1:
            event.timestamp = None  # type: ignore[assignment]
            for name in ("id", "type", "workflow_id", "data"):
                delattr(event, name)
        seen.append(n)
        if n == 1 and fails:
            raise ValueError

    works = Works(lambda kind, seen: declared(kind, lambda event: take_apart(event, seen), shape))
    letters = await works.letters_after(body(1, works.kind), dead=int(fails))
    assert [letter.reason for letter in letters] == ["exhausted"] * fails


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_a_time_without_zone_is_utc(codec: str) -> None:
    """Other languages leave it out; here every time is aware. So for a deadline, and for typed data."""
    group, seen = unique(), list[Event[Found]]()

    @consumer(group=group)
    async def handler(event: Event[Found]) -> None:
        seen.append(event)

    encode = msgspec.json.encode if codec == "json" else msgspec.msgpack.encode
    envelope = {
        "id": "e", "type": "found.foreign", "timestamp": "2024-05-01T12:00:00.5", "deadline": "2024-05-01 13:00:00",
        "data": {"n": 1}, "of others": [1, None],
    }  # fmt: skip
    async with Running() as here, goes_on(here, handler):
        field = b"data" if codec == "json" else b"msgpack"
        await here.memory.streams.append([NewEntry("events:found.foreign", field, encode(envelope))])
        await eventually(lambda: seen)
    assert seen[0].timestamp.isoformat() == "2024-05-01T12:00:00.500000+00:00"
    assert seen[0].deadline is not None
    assert seen[0].deadline.isoformat() == "2024-05-01T13:00:00+00:00"
    assert seen[0].data == Found(n=1)


# -- exceptions


class NoTextError(Exception):
    def __str__(self) -> str:
        return cast("str", None)


class RaisesAsTextError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class OtherClassError(Exception):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("asked for its class")


class OtherTraceError(Exception):
    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("asked for its traceback")

    __cause__ = __context__ = __notes__ = __traceback__  # type: ignore[assignment]


class Unhashable(type):
    def __hash__(cls) -> int:
        raise RuntimeError("asked for the hash of its class")


class OfUnhashableError(Exception, metaclass=Unhashable):
    pass


class RetryWithoutWait(Retry):
    def __init__(self) -> None:
        Exception.__init__(self)


class RetryWithText(Retry):
    after = "soon"  # type: ignore[assignment]

    def __init__(self) -> None:
        Exception.__init__(self)


class RetryNever(RetryWithText):
    after = float("nan")


def notes() -> Exception:
    error = ValueError()
    error.__notes__ = 5  # type: ignore[assignment]
    return error


def chain() -> Exception:
    error: Exception = NoTextError()
    for _ in range(300):
        error = ExceptionGroup("of a group", [error])
    return error


EVIL: list[Callable[[], BaseException]] = [
    NoTextError, RaisesAsTextError, OtherClassError, OtherTraceError, OfUnhashableError, RetryWithoutWait, RetryWithText, RetryNever, notes,
    chain, lambda: ExceptionGroup("two", [NoTextError(), OtherTraceError()]), lambda: BaseExceptionGroup("b", [RaisesAsTextError()]),
    lambda: ValueError("x" * 5_000_000), lambda: KeyError(b"\xff", "\ud800", "\0"),
]  # fmt: skip


def raises(event: Event, seen: list[int]) -> None:
    if event.data["n"] < len(EVIL):
        error = EVIL[event.data["n"]]()
        raise error
    seen.append(event.data["n"])


@pytest.mark.parametrize("shape", ["one by one", "batch", "thread", "in order"])
async def test_an_exception_that_cannot_be_looked_at_is_a_failure_as_any_other(shape: str) -> None:
    """It is tried again, and then a dead letter, with as much of a story as can be had."""
    works = Works(lambda kind, seen: declared(kind, lambda event: raises(event, seen), shape))
    letters = await works.letters_after(*(body(n, works.kind) for n in range(len(EVIL))), dead=len(EVIL))
    assert {(letter.reason, letter.tries) for letter in letters} == {("exhausted", 2)}
    assert sorted(letter.error for letter in letters) == sorted(type(make()).__name__ for make in EVIL)
    assert max(len(letter.message) for letter in letters) <= 1000
    assert max(len(letter.trace) for letter in letters) <= 8000


@pytest.mark.parametrize("shape", ["at most once", "every process"])
async def test_one_that_is_not_tried_again_is_forgotten(shape: str) -> None:
    """Whatever cannot be looked at, the next event comes."""
    works = Works(lambda kind, seen: declared(kind, lambda event: raises(event, seen), shape))
    assert await works.letters_after(*(body(n, works.kind) for n in range(len(EVIL))), dead=0) == []


async def test_policies_by_class_hold_for_exceptions_whose_class_cannot_be_looked_up() -> None:
    """As for all that are not named."""
    kind, group = unique(), unique()

    @consumer(group=group, types=[kind], retry={KeyError: None, Exception: TWICE})
    async def handler(event: Event) -> None:
        raise OfUnhashableError

    async with Running() as here, goes_on(here, handler):
        await here.publish(kind, 1)
        letters = await dead_letters(here, kind, group)
    assert (letters[0].reason, letters[0].tries) == ("exhausted", 2)


async def test_a_listener_that_raises_whatever_it_likes_harms_nobody() -> None:
    """Be it no `Exception`, or one that cannot be looked at."""
    raised = iter(
        [RaisesAsTextError(), SystemExit(), OtherTraceError(), GeneratorExit(), OtherClassError(), NoTextError()] * 3
    )

    def listener(_signal: Any) -> None:
        error = next(raised, None)
        if error is not None:
            raise error

    kind, seen = unique(), list[int]()
    handler = declared(kind, lambda event: seen.append(event.data["n"]))
    async with Running() as here:
        here.bus._announcer.add(listener)
        async with goes_on(here, handler):
            for n in range(20):
                await here.publish(kind, n)
            await eventually(lambda: sorted(seen) == list(range(20)))


# -- results


class Result:
    """As a database's result is: looking at it may raise."""

    def __iter__(self) -> Any:
        raise RuntimeError("this result returns no rows")

    def __len__(self) -> int:
        raise RuntimeError

    def __bool__(self) -> bool:
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __repr__(self) -> str:
        raise SystemExit

    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError


class Endless:
    def __iter__(self) -> Any:
        return self

    def __next__(self) -> None:
        return None

    def __length_hint__(self) -> int:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "result",
    [Result, lambda: [Result()], Endless, lambda: {1: 2}, lambda: "x", lambda: b"x", lambda: 5,
     lambda: ValueError, lambda: [ValueError], lambda: True],
    ids=range(10),
)  # fmt: skip
async def test_a_batch_that_returns_something_else_has_failed(result: Callable[[], Any]) -> None:
    """As `return session.execute(...)` at its end does."""
    kind, group, seen = unique(), unique(), list[int]()

    @consumer(group=group, types=[kind], batch=1, retry=TWICE)
    async def handler(events: list[Event]) -> Any:
        (event,) = events
        if event.data["n"] == 1:
            return result()
        seen.append(event.data["n"])
        return None

    async with Running() as here, goes_on(here, handler):
        await here.publish(kind, 1, 2)
        letters = await dead_letters(here, kind, group)
        await eventually(lambda: seen == [2])
        await here.publish(kind, 3)
        await eventually(lambda: seen == [2, 3])
    assert (letters[0].reason, letters[0].error) == ("exhausted", "DeclarationError")
    assert "one outcome an event" in letters[0].message


@pytest.mark.parametrize("shape", ["one by one", "with delivery", "thread", "in order"])
async def test_what_a_handler_of_one_event_returns_is_nobodys_business(shape: str) -> None:
    """It is done; nobody looks at its result."""

    def work(event: Event, seen: list[int]) -> Any:
        seen.append(event.data["n"])
        return Result()

    works = Works(lambda kind, seen: declared(kind, lambda event: work(event, seen), shape))
    assert await works.letters_after(body(1, works.kind), dead=0) == []


# -- what is left behind


class NotComparable:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("as arrays do")

    __hash__ = object.__hash__


class NoTruth:
    def __eq__(self, other: object) -> Any:
        return NoTruth()

    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")

    __hash__ = object.__hash__


@pytest.mark.parametrize("shape", ["one by one", "with delivery", "batch", "in order"])
@pytest.mark.parametrize("left", [NotComparable, NoTruth])
async def test_a_context_variable_that_cannot_be_compared_harms_nobody(left: Callable[[], Any], shape: str) -> None:
    """The next handler does not see what this one has left, either."""
    variable = contextvars.ContextVar[Any]("variable")
    variable.set("outside")
    found: list[Any] = []

    def work(event: Event, seen: list[int]) -> None:
        found.append(variable.get() == "outside" if isinstance(variable.get(), str) else False)
        variable.set(left())
        seen.append(event.data["n"])

    works = Works(lambda kind, seen: declared(kind, lambda event: work(event, seen), shape))
    await works.letters_after(body(1, works.kind), dead=0)
    assert set(found) == {True}


# -- keys


class EvilText(str):
    __slots__ = ()

    def __hash__(self) -> int:
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __str__(self) -> str:
        return self


class NoKey:
    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize(("key", "has_text"), [(lambda: EvilText("k"), True), (NoKey, False), (Result, False)])
async def test_a_key_that_cannot_be_looked_at_costs_its_delivery_and_no_more(
    key: Callable[[], Any], has_text: bool
) -> None:
    """Where it has a text that is the key; else the delivery has failed."""
    kind, group, seen = unique(), unique(), list[int]()

    @consumer(group=group, types=[kind], retry=TWICE, order_by=lambda event: key() if event.data["n"] == 1 else "other")
    async def handler(event: Event) -> None:
        seen.append(event.data["n"])

    async with Running() as here, goes_on(here, handler):
        await here.publish(kind, 1, 2, 3)
        await dead_letters(here, kind, group, 0 if has_text else 1)
        await eventually(lambda: set(seen) == {2, 3} | ({1} if has_text else set()))
        await here.publish(kind, 4)
        await eventually(lambda: 4 in seen)


@pytest.mark.parametrize("what", ["key", "class"])
async def test_a_key_that_can_be_had_only_once_holds_nobody_up(what: str) -> None:
    """What waits behind a delivery goes on when that has ended, though its key cannot be had any more."""
    group, seen, tried = unique(), list[int](), list[int]()

    def key_of(event: Event[Found]) -> str:
        if what == "key" and tried and event.data.n == 1:
            raise LookupError
        return "k"

    @consumer(group=group, retry=Backoff(initial=0.05, tries=3), order_by=key_of)
    async def handler(event: Event[Found]) -> None:
        if event.data.n == 1:
            tried.append(1)
            raise ValueError
        seen.append(event.data.n)

    kind = "found.foreign"
    if what == "class":
        kind, handler = OnceReadable.event_type or "", _of_once_readable(group, seen)
        OnceReadable.broken = False
    async with Running() as here, goes_on(here, handler):
        await here.append(kind, body(1, kind), body(2, kind), body(3, kind))
        await dead_letters(here, kind, group)
        await eventually(lambda: seen == [2, 3])


class OnceReadable(EventData, type="found.once_readable"):
    n: int
    broken: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.n == 1 and OnceReadable.broken:
            raise IndexError


def _of_once_readable(group: str, seen: list[int]) -> Any:
    @consumer(group=group, retry=Backoff(initial=0.05, tries=3), order_by=lambda event: "k")
    async def handler(event: Event[OnceReadable]) -> None:
        if event.data.n == 1:
            OnceReadable.broken = True
            raise ValueError
        seen.append(event.data.n)

    return handler
