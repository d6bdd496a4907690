"""Event data: how a class becomes an event type, and who may claim one."""

from __future__ import annotations

import gc
import textwrap
from types import ModuleType

import msgspec
import pytest

from hyperbus.errors import DeclarationError, DuplicateTypeError
from hyperbus.event.data import EventData, check_type, event_types, type_of


class Opened(EventData, type="data_test.opened"):
    contract: str
    network: str = "testnet"


class Shared(EventData):
    contract: str


class Closed(Shared, type="data_test.closed"):
    cause: str = ""


def define(module: str, name: str, event_type: str) -> type[EventData]:
    """Define an event class as if it stood in `module`."""
    place = ModuleType(module)
    source = f"""
        from hyperbus.event.data import EventData
        class {name}(EventData, type={event_type!r}):
            pass
    """
    exec(textwrap.dedent(source), vars(place))  # the class has to believe that it lives in that module
    defined: type[EventData] = vars(place)[name]
    return defined


def test_a_class_keyword_names_the_event_type() -> None:
    """Both the class and its instances know the type."""
    assert type_of(Opened) == "data_test.opened"
    assert type_of(Opened(contract="ERC20")) == "data_test.opened"


def test_fields_defaults_and_struct_options_are_those_of_msgspec() -> None:
    """`type=` takes nothing away from what a Struct can do."""

    class Frozen(EventData, type="data_test.frozen", frozen=True):
        number: int

    assert Opened(contract="ERC20").network == "testnet"
    with pytest.raises(AttributeError):
        Frozen(number=1).number = 2  # type: ignore[misc]


def test_a_class_without_type_is_a_base_whose_fields_are_inherited() -> None:
    """It has no type, is not listed, and hands none of that on."""
    assert Closed(contract="ERC20").contract == "ERC20"
    assert Shared.event_type is None
    assert Shared not in event_types().values()


def test_a_subclass_of_an_event_type_needs_a_type_of_its_own() -> None:
    """Two classes would otherwise share one stream unasked."""

    class OpenedAgain(Opened):
        pass

    with pytest.raises(DeclarationError, match="OpenedAgain has no event type"):
        type_of(OpenedAgain)


@pytest.mark.parametrize("thing", [3, None, Shared, Shared(contract=""), msgspec.Struct, dict])
def test_what_has_no_event_type_is_refused_with_advice(thing: object) -> None:
    """The message shows the line to write."""
    with pytest.raises(DeclarationError, match=r"has no event type: write class \w+\(EventData, type='\.\.\.'\)"):
        type_of(thing)


@pytest.mark.parametrize("name", ["a", "workflow.started", "a_1.b2.c", "0.9", "_"])
def test_lower_case_words_joined_by_dots_are_event_types(name: str) -> None:
    """The design's pattern, as it stands."""
    assert check_type(name) == name


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "A", "a-b", "a b", "a:b", "a*", "ä", "a\n", "@agent"])
def test_other_names_are_refused_as_event_types(name: str) -> None:
    """They could not be told from other keys, or not be written by every client."""
    with pytest.raises(DeclarationError, match="cannot be an event type: use lower-case letters"):
        check_type(name)


def test_a_bad_type_is_refused_where_the_class_is_defined() -> None:
    """And not later, at the first publish."""
    with pytest.raises(DeclarationError, match="'Not A Type' cannot be an event type"):

        class Bad(EventData, type="Not A Type"):
            pass


def test_event_types_lists_what_this_process_defines() -> None:
    """Subclasses of subclasses too."""
    found = event_types()
    assert found["data_test.opened"] is Opened
    assert found["data_test.closed"] is Closed


def test_two_classes_with_one_type_are_refused_by_name() -> None:
    """The message names both places."""
    first = define("shop.orders", "Ordered", "data_test.ordered")
    second = define("shop.returns", "Ordered", "data_test.ordered")
    with pytest.raises(DuplicateTypeError, match=r"shop\.orders\.Ordered and shop\.returns\.Ordered"):
        event_types()
    assert type_of(first) == type_of(second)


def test_a_duplicate_that_nobody_holds_any_more_does_no_harm() -> None:
    """A class lives in a reference cycle, and outlives the last name that it had."""
    gc.disable()
    try:
        kept = define("shop.kept", "Paid", "data_test.paid")
        define("shop.dropped", "Paid", "data_test.paid")
        assert event_types()["data_test.paid"] is kept
    finally:
        gc.enable()


def test_the_same_module_and_name_again_replaces_the_older_class() -> None:
    """As a reload does."""
    older = define("shop.reloaded", "Sent", "data_test.sent")
    newer = define("shop.reloaded", "Sent", "data_test.sent")
    assert event_types()["data_test.sent"] is newer
    assert newer is not older
