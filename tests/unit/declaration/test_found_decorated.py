"""Whatever can be called with an event can be a consumer; of what cannot, one line says what to write."""

from __future__ import annotations

import asyncio
import functools
import textwrap
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from hyperbus import Consumer, Event, EventData, consumer
from hyperbus.errors import DeclarationError, HyperbusError
from hyperbus.supervisor.worker_process.loading import load_consumers
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique


class Ordered(EventData, type="found.ordered"):
    n: int


class Shop:
    """Has no idea of hyperbus."""

    def __init__(self, seen: list[int]) -> None:
        self.seen = seen

    async def take(self, event: Event[Ordered]) -> None:
        await asyncio.sleep(0)
        self.seen.append(event.data.n)

    def take_plainly(self, event: Event[Ordered], delivery: Any) -> None:
        self.seen.append(event.data.n)

    def take_many(self, events: list[Event[Ordered]]) -> None:
        self.seen.extend(event.data.n for event in events)

    @classmethod
    async def take_for(cls, event: Event[Ordered], seen: list[int] | None = None) -> None:
        CLASS_SEEN.append(event.data.n)

    @staticmethod
    async def take_static(event: Event[Ordered]) -> None:
        CLASS_SEEN.append(event.data.n)


CLASS_SEEN: list[int] = []


class Slotted:
    __slots__ = ("seen",)

    def __init__(self, seen: list[int]) -> None:
        self.seen = seen

    async def __call__(self, event: Event[Ordered]) -> None:
        await asyncio.sleep(0)
        self.seen.append(event.data.n)


class PlainCallable(Shop):
    def __call__(self, event: Event[Ordered]) -> None:
        self.seen.append(event.data.n)


async def with_list(seen: list[int], event: Event[Ordered]) -> None:
    await asyncio.sleep(0)
    seen.append(event.data.n)


def with_option(event: Event[Ordered], *, seen: list[int]) -> None:
    seen.append(event.data.n)


class Whole(Consumer):
    def __init__(self, seen: list[int]) -> None:
        self.seen = seen

    async def handle(self, event: Event[Ordered]) -> None:
        self.seen.append(event.data.n)


class StaticHandle(Consumer):
    @staticmethod
    async def handle(event: Event[Ordered]) -> None:
        CLASS_SEEN.append(event.data.n)


class ClassHandle(Consumer):
    @classmethod
    async def handle(cls, event: Event[Ordered]) -> None:
        CLASS_SEEN.append(event.data.n)


WAYS: dict[str, Callable[[list[int]], Any]] = {
    "bound method": lambda seen: Shop(seen).take,
    "bound plain method": lambda seen: Shop(seen).take_plainly,
    "bound method of a batch": lambda seen: Shop(seen).take_many,
    "class method": lambda seen: Shop.take_for,
    "static method": lambda seen: Shop.take_static,
    "partial": lambda seen: functools.partial(with_list, seen),
    "partial of a partial": lambda seen: functools.partial(functools.partial(with_list), seen),
    "partial with a keyword": lambda seen: functools.partial(with_option, seen=seen),
    "partial of a bound method": lambda seen: functools.partial(Shop(seen).take),
    "callable with slots": Slotted,
    "plain callable": PlainCallable,
    "instance of Consumer": Whole,
    "static handle": lambda seen: StaticHandle,
    "class handle": lambda seen: ClassHandle,
}


@pytest.mark.parametrize("way", WAYS)
async def test_what_can_be_called_with_an_event_is_a_consumer(way: str) -> None:
    """Its types come from its annotation, and it is run as it is meant to be."""
    seen: list[int] = []
    CLASS_SEEN.clear()
    declared = consumer(group=unique())(WAYS[way](seen))
    async with Running() as here, here.bus.running(declared):
        await here.bus.publish_many([Ordered(n=1), Ordered(n=2)])
        await eventually(lambda: seen + CLASS_SEEN == [1, 2])


@pytest.mark.parametrize(
    "make",
    [lambda seen: seen.append, lambda seen: lambda event: (seen.append(event), None)[1], lambda seen: functools.partial(seen.append)],
    ids=["builtin", "lambda", "partial of a builtin"],
)  # fmt: skip
async def test_what_has_no_annotation_takes_types(make: Callable[[list[Any]], Any]) -> None:
    """And where it has no name, a group."""
    kind, seen = unique(), list[Event]()
    declared = consumer(group=unique(), types=[kind])(make(seen))
    async with Running() as here, here.bus.running(declared):
        await here.publish(kind, 1)
        await eventually(lambda: [event.data["n"] for event in seen] == [1])


async def test_brackets_can_be_left_out() -> None:
    """On functions and classes alike; the group is named after them."""
    seen: list[int] = []

    @consumer
    async def bills_of_all(event: Event[Ordered]) -> None:
        seen.append(event.data.n)

    @consumer
    class AllBills(Consumer):
        async def handle(self, event: Event[Ordered]) -> None:
            seen.append(event.data.n)

    async with Running() as here, here.bus.running(bills_of_all, AllBills):
        await here.bus.publish(Ordered(n=1))
        await eventually(lambda: seen == [1, 1])
        groups = {
            info.group for found in await here.memory.streams.info(["events:found.ordered"]) for info in found.groups
        }
    assert {"bills_of_all", "all_bills"} <= groups


def method(self: Any, event: Event[Ordered]) -> None: ...


def of_class(cls: Any, event: Event[Ordered]) -> None: ...


def nothing() -> None: ...


async def generates(event: Event[Ordered]) -> AsyncGenerator[int]:
    yield 1


def yields(event: Event[Ordered]) -> Generator[int]:
    yield 1


class Generating(Consumer):
    async def handle(self, event: Event[Ordered]) -> AsyncGenerator[int]:
        yield 1


class CallsGenerator:
    def __call__(self, event: Event[Ordered]) -> Generator[int]:
        yield 1


@pytest.mark.parametrize(
    ("decorated", "says"),
    [
        (lambda: method, "subclass hyperbus.Consumer"),
        (lambda: Shop.take, "bound one"),
        (lambda: of_class, "bound one"),
        (lambda: classmethod(of_class), "bound one"),
        (lambda: nothing, r"has to take \(event\)"),
        (lambda: 5, "decorate a function"),
        (lambda: property(method), "decorate a function"),
        (lambda: Shop, "subclass of hyperbus.Consumer"),
        (lambda: type, "subclass of hyperbus.Consumer"),
        (Consumer, "handle"),
        (lambda: vars(dict)["fromkeys"], "wrap it|bound one|annotate"),
        (lambda: generates, "yield"),
        (lambda: yields, "yield"),
        (lambda: functools.partial(yields), "yield"),
        (lambda: Generating, "yield"),
        (CallsGenerator, "yield"),
        (lambda: CallsGenerator().__call__, "yield"),
        (lambda: lambda event: None, "annotate"),
        (lambda: dict, "subclass of hyperbus.Consumer"),
        (lambda: None, "decorate a function"),
    ],
)
@pytest.mark.parametrize("brackets", [True, False])
def test_one_line_says_what_to_write(decorated: Callable[[], Any], says: str, brackets: bool) -> None:
    """Of everything else."""
    target = decorated()
    if not brackets and target is None:
        return
    with pytest.raises(DeclarationError, match=says) as refused:
        consumer()(target) if brackets else consumer(target)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("word", ["billing", b"billing", 5, ["a.b"]])
def test_a_group_has_to_be_said_to_be_one(word: Any) -> None:
    """Options are keywords."""
    with pytest.raises(DeclarationError):
        consumer(word)


def test_a_lambda_needs_a_group() -> None:
    """It has no name."""
    with pytest.raises(HyperbusError, match="group="):
        consumer(types=["a.b"])(lambda event: None)


def test_methods_of_an_ordinary_class_are_refused_where_they_are_decorated() -> None:
    """And not on every try."""
    with pytest.raises(DeclarationError, match=r"subclass hyperbus\.Consumer"):

        class Shop2:
            @consumer(group="g")
            async def take(self, event: Event[Ordered]) -> None: ...


async def test_static_methods_can_be_decorated_in_their_class() -> None:
    """In either order."""
    seen: list[int] = []

    class Static:
        @staticmethod
        @consumer(group=unique())
        async def first(event: Event[Ordered]) -> None:
            seen.append(event.data.n)

        @consumer(group=unique())
        @staticmethod
        async def second(event: Event[Ordered]) -> None:
            seen.append(event.data.n)

    async with Running() as here, here.bus.running(Static.first, Static.second):
        await here.bus.publish(Ordered(n=1))
        await eventually(lambda: seen == [1, 1])


def test_modules_declare_all_of_them(tmp_path: Path) -> None:
    """`hyperbus run` finds whatever a module declares, and nothing that it only imports or that cannot be asked."""
    (tmp_path / "found_others.py").write_text(
        "from hyperbus import Event, consumer\n@consumer(group='elsewhere', types=['x'])\ndef other(event: Event): ...\n"
    )
    (tmp_path / "found_declared.py").write_text(
        textwrap.dedent(
            """
            import functools
            from hyperbus import Consumer, Event, consumer
            from found_others import other

            class Proxy:
                def __getattribute__(self, name): raise RuntimeError("outside of its context")
                def __eq__(self, other): raise RuntimeError

            proxy = Proxy()

            class Shop:
                def take(self, event: Event): ...
                @staticmethod
                @consumer(group="static", types=["x"])
                def static(event: Event): ...

            def with_more(more, event: Event): ...

            bound = consumer(group="bound", types=["x"])(Shop().take)
            partial = consumer(group="partial", types=["x"])(functools.partial(with_more, 1))
            again = partial
            elsewhere = consumer(group="imported", types=["x"])(functools.partial(other))
            """
        )
    )
    found = load_consumers(["found_declared"], folder=tmp_path)
    groups = sorted(item.__hyperbus_declaration__.group for item in found)
    assert groups == ["bound", "imported", "partial", "static"]
