"""Signatures: what an annotation says, in every way that Python lets it be written."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional, TypeVar, Union

import pytest

from hyperbus.declaration.consumer import Consumer, consumer, declaration_of
from hyperbus.declaration.delivery import Delivery
from hyperbus.declaration.signature import Signature, read_signature
from hyperbus.errors import DeclarationError
from hyperbus.event import envelope  # noqa: F401 - an annotation below names it
from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event

if TYPE_CHECKING:
    from decimal import Decimal  # noqa: F401 - not there at run time

T = TypeVar("T")


class A(EventData, type="signature_test.a"):
    pass


class B(EventData, type="signature_test.b"):
    pass


class Untyped(EventData):
    pass


def read(handler: Callable[..., Any]) -> Signature:
    return read_signature(handler, method=False, scope={})


def annotated(annotation: Any) -> Signature:
    """Read a handler whose event has this annotation."""

    async def handler(event: Any) -> None: ...

    handler.__annotations__["event"] = annotation
    return read(handler)


@pytest.mark.parametrize(
    ("annotation", "data_types", "batch"),
    [
        (Event, (), False),
        (Any, (), False),
        (Event[Any], (), False),
        (Event[dict], (), False),
        (Event[dict[str, Any]], (), False),
        (Event[A], (A,), False),
        ("Event[A]", (A,), False),
        ("envelope.Event[A]", (A,), False),
        (Event[A] | Event[B], (A, B), False),
        (Union[Event[A], Event[B]], (A, B), False),  # noqa: UP007 - the older spelling counts too
        ("Event[A] | Event[B]", (A, B), False),
        (Event[A | B], (A, B), False),
        (Event[A | B] | Event[A], (A, B), False),
        (list, (), True),
        (list[Event], (), True),
        (list[Any], (), True),
        (list[Event[A]], (A,), True),
        (list[Event[A] | Event[B]], (A, B), True),
        ("list[Event[A | B]]", (A, B), True),
    ],
    ids=str,
)
def test_an_annotation_says_which_data_and_whether_a_list(
    annotation: Any, data_types: tuple[type, ...], batch: bool
) -> None:
    """Written as a type or as text."""
    signature = annotated(annotation)
    assert signature.data_types == data_types
    assert signature.batch is batch


def test_a_handler_without_annotation_takes_any_event() -> None:
    """It has to say types= then."""

    async def handler(event): ...

    assert read(handler) == Signature(data_types=(), batch=False, wants_delivery=False, is_async=True)


def test_a_plain_function_is_told_from_a_coroutine_function() -> None:
    """It will run in a thread."""

    def handler(event: Event[A]) -> None: ...

    assert not read(handler).is_async


def test_a_second_parameter_is_the_delivery() -> None:
    """Whatever its name is."""

    async def with_delivery(event: Event[A], delivery: Delivery) -> None: ...

    async def with_default(event: Event[A], handed: Any = None) -> None: ...

    async def with_more(
        event: Event[A], delivery: Delivery, extra: int = 3, *rest: Any, flag: bool = False
    ) -> None: ...

    async def without(event: Event[A], *, flag: bool = False, **more: Any) -> None: ...

    async def starred(*events: Any) -> None: ...

    wants = [read(handler).wants_delivery for handler in (with_delivery, with_default, with_more, without, starred)]
    assert wants == [True, True, True, False, False]


def test_self_is_not_counted() -> None:
    """Of a method."""

    @consumer()
    class Writer(Consumer):
        async def handle(self, event: Event[A]) -> None: ...

    assert not declaration_of(Writer).signature.wants_delivery


def test_a_wrapped_handler_is_read_through_its_wrapper() -> None:
    """Other decorators keep what they wrap."""

    async def handler(event: Event[A], delivery: Delivery) -> None: ...

    @functools.wraps(handler)
    async def wrapper(*args: Any, **options: Any) -> None:
        await handler(*args, **options)

    assert read(wrapper) == read(handler)


def test_annotations_may_name_classes_of_the_function_around() -> None:
    """The decorator looks there; tests declare their classes so."""

    class Local(EventData, type="signature_test.local"):
        pass

    @consumer()
    async def handler(event: Event[Local]) -> None: ...

    @consumer()
    class Writer(Consumer):
        async def handle(self, events: list[Event[Local]]) -> None: ...

    assert declaration_of(handler).signature.data_types == (Local,)
    assert declaration_of(Writer).signature.data_types == (Local,)


def test_a_handler_of_no_known_module_is_read_with_its_scope() -> None:
    """Code typed at a prompt, for one."""

    async def handler(event: Event[A]) -> None: ...

    handler.__module__ = "of no module"
    assert read_signature(handler, method=False, scope={"Event": Event, "A": A}).data_types == (A,)


async def nothing() -> None: ...


async def three(event: Event, delivery: Delivery, more: Any) -> None: ...


async def keyword(event: Event, *, needed: int) -> None: ...


async def only_keywords(*, event: Event = None) -> None: ...  # type: ignore[assignment]


async def only_more(**more: Any) -> None: ...


@pytest.mark.parametrize("handler", [nothing, three, keyword, only_keywords, only_more])
def test_a_handler_that_could_not_be_called_is_refused(handler: Callable[..., Any]) -> None:
    """It is given one or two arguments, by position."""
    with pytest.raises(DeclarationError, match=rf"^{handler.__name__} has to take \(event\) or \(event, delivery\)$"):
        read(handler)


@pytest.mark.parametrize(
    "annotation",
    [int, A, dict, str, tuple[Event[A]], Optional[Event[A]], list[int], list[list[Event]], set[Event]],  # noqa: UP045
    ids=str,
)
def test_what_is_not_an_event_is_refused(annotation: Any) -> None:
    """The message lists what would fit."""
    with pytest.raises(DeclarationError, match=r"annotate its event as Event, Event\[SomeData\]"):
        annotated(annotation)


@pytest.mark.parametrize("annotation", [Event[int], Event[T], Event[Untyped | int], Event[list[A]]], ids=str)
def test_data_that_is_no_event_data_is_refused(annotation: Any) -> None:
    """It could not be told which stream it comes from."""
    with pytest.raises(DeclarationError, match=r"has to be an EventData with a type|has no event type"):
        annotated(annotation)


def test_data_without_a_type_is_refused() -> None:
    """It is a base for others."""
    with pytest.raises(DeclarationError, match="Untyped has no event type"):
        annotated(Event[Untyped])


@pytest.mark.parametrize(
    "annotation", [Event[A] | Event, Event[A | B] | Event, Event[A] | Event[dict], list[Event[A] | Event]], ids=str
)
def test_named_and_any_data_together_are_refused(annotation: Any) -> None:
    """The one takes what the other leaves out."""
    with pytest.raises(DeclarationError, match=r"takes both Event\[...\] and bare Event; bare Event already takes any"):
        annotated(annotation)


@pytest.mark.parametrize(
    "annotation", ["Event[Missing]", "envelope.Missing", "Event[A, B, A]", "Event[", "Event[Decimal]"]
)
def test_an_annotation_that_cannot_be_read_is_refused_with_advice(annotation: str) -> None:
    """Names that exist only for type checkers, for one."""
    with pytest.raises(DeclarationError, match=r"cannot be read: .*; import that name at run time"):
        annotated(annotation)
