"""The quick look at events whose data is a dict: it lets nothing pass that could not be read back."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hyperbus.event.checking import EventChecker
from hyperbus.event.codec import codecs
from hyperbus.event.envelope import Event
from hyperbus.event.plain_check import plain_dict_check

PLAIN: list[dict[Any, Any]] = [
    {},
    {"text": "x", "number": 1, "yes": True, "nothing": None},
    {"float": 1.5, "number": 2**63 - 1},
]
#: Not to be let pass at a glance, by any codec.
ODD: list[dict[Any, Any]] = [
    {"nan": math.nan},
    {"infinite": 1, "and": -math.inf},
    {"inside": [math.nan]},
    {"inside": {"deep": 1}},
]


@pytest.mark.parametrize("any_names", [True, False])
def test_simple_values_are_plain(any_names: bool) -> None:
    """Nothing more is asked of them."""
    check = plain_dict_check(any_names=any_names)
    assert [check(Event(type="t", data=data), data) for data in PLAIN] == [True] * len(PLAIN)
    assert [check(Event(type="t", data=data), data) for data in ODD] == [False] * len(ODD)


@pytest.mark.parametrize("data", [{1: "x"}, {b"x": 1}, {None: 1}, {"x": 1, 1.5: 2}])
def test_names_that_are_no_text_are_looked_at_where_the_codec_keeps_them(data: dict[Any, Any]) -> None:
    """No reader takes them for names."""
    assert not plain_dict_check(any_names=False)(Event(type="t", data=data), data)


@pytest.mark.parametrize("odd", [{"workflow_id": 1}, {"id": 7}, {"timestamp": "now"}, {"to": 1}, {"version": "x"}])
def test_an_odd_envelope_is_not_plain(odd: dict[str, Any]) -> None:
    """Whatever its data are."""
    event: Event[Any] = Event(type="t", data={})
    for name, value in odd.items():
        setattr(event, name, value)
    assert not plain_dict_check(any_names=True)(event, event.data)


@pytest.mark.parametrize("codec", codecs(), ids=lambda codec: codec.name)
@pytest.mark.parametrize("data", PLAIN)
def test_what_is_plain_is_read_as_it_was(codec: Any, data: dict[Any, Any]) -> None:
    """By either codec, and the checker says the same."""
    event = Event(type="plain_check.untyped", data=data)
    body = codec.encode(event)
    EventChecker(codec).check(event, body)
    assert codec.decoder(dict[str, Any]).decode(body).data == data
