"""The key of an event, by which a consumer keeps an order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbus.declaration.ordering import check_field, key_function
from hyperbus.errors import DeclarationError
from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event


class Moved(EventData, type="ordering_test.moved"):
    account: str | None = None
    n: int = 0


class Plain(EventData, type="ordering_test.plain"):
    pass


def event(data: Any, **envelope: Any) -> Event:
    return Event(type="ordering_test.moved", data=data, **envelope)


@pytest.mark.parametrize(
    ("order_by", "of", "key"),
    [
        ("workflow_id", event({}, workflow_id="w"), "w"),
        ("workflow_id", event({}), None),
        ("source_agent", event({}, source_agent="a"), "a"),
        ("source_agent", event({}, workflow_id="w"), None),
        ("data.account", event(Moved(account="x")), "x"),
        ("data.account", event(Moved()), None),
        ("data.n", event(Moved(n=7)), "7"),
        ("data.account", event({"account": "x"}), "x"),
        ("data.account", event({"account": None}), None),
        ("data.account", event({"account": ""}), ""),
        ("data.account", event({}), None),
        ("data.account", event(Plain()), None),
        ("data.account", event([1]), None),
        (lambda event: event.id, event({}, id="i"), "i"),
        (lambda event: 5, event({}), "5"),
        (lambda event: None, event({}), None),
        (None, event({}, workflow_id="w"), None),
    ],
)
def test_the_key_is_what_was_named(order_by: Any, of: Event, key: str | None) -> None:
    """As text; what is not there gives none."""
    assert key_function(order_by)(of) == key


@given(value=st.none() | st.text() | st.integers() | st.booleans())
def test_equal_values_have_equal_keys_in_a_struct_and_in_a_dict(value: Any) -> None:
    """Whether a process knows the type or not."""
    key_of = key_function("data.account")
    assert key_of(event(Moved(account=value))) == key_of(event({"account": value}))


@pytest.mark.parametrize("order_by", ["", "data", "data.", "data.a.b", "data.a b", "data.class", "id", 3])
def test_what_names_no_key_is_refused(order_by: Any) -> None:
    """The message says what can be named."""
    words = r"order_by=.* names no key: say 'workflow_id', 'source_agent', 'data\.<field>'"
    with pytest.raises(DeclarationError, match=words):
        key_function(order_by)


def test_a_field_has_to_be_in_one_of_the_classes() -> None:
    """One that is in none would never give an order, and nobody would notice."""
    check_field("data.account", [Plain, Moved])
    check_field("workflow_id", [Plain])
    check_field(None, [Plain])
    check_field(lambda event: event.id, [Plain])
    with pytest.raises(DeclarationError, match="no event of this consumer has a field 'account' in its data"):
        check_field("data.account", [Plain])
