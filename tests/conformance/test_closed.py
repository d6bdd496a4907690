"""A transport that was closed refuses whatever it is asked: each method of the contracts, as they are written down."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from inspect import Parameter, getmembers, isfunction, signature
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from hyperbus import BusUnavailable
from hyperbus.transport import Durability, Records, Streams
from tests.conformance.harness import Harness

CONTRACTS: dict[str, Any] = {"streams": Streams, "records": Records}
#: Values of simple types. An id is a body, too.
SIMPLE: dict[Any, Any] = {str: "events:a", bytes: b"1-0", int: 1, float: 1.0, bool: False, Durability: Durability(1)}


def example(hint: Any) -> Any:
    """Return a value of a type, with something in it: a call about nothing needs no server."""
    if hint in SIMPLE:
        return SIMPLE[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return tuple(map(example, inner))
    if origin in (Sequence, Iterable, list):
        return [example(inner[0])]
    if origin in (Mapping, dict):
        return {example(inner[0]): example(inner[1])}
    if origin in (Union, types.UnionType):
        return example(inner[0])
    return hint(*map(example, get_type_hints(hint).values()))  # a named tuple


def arguments_of(function: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return what a method can be called with, and no more than it needs."""
    hints, positional, named = get_type_hints(function), list[Any](), dict[str, Any]()
    for name, parameter in signature(function).parameters.items():
        if name != "self" and parameter.default is Parameter.empty:
            if parameter.kind is Parameter.KEYWORD_ONLY:
                named[name] = example(hints[name])
            else:
                positional.append(example(hints[name]))
    return positional, named


METHODS = [
    (part, name)
    for part, contract in CONTRACTS.items()
    for name, _ in getmembers(contract, isfunction)
    if not name.startswith("_")
]


@pytest.mark.parametrize(("part", "name"), METHODS)
async def test_a_closed_transport_refuses(harness: Harness, part: str, name: str) -> None:
    """As one whose server is away, and at once."""
    positional, named = arguments_of(getattr(CONTRACTS[part], name))
    method = getattr(getattr(harness.transport, part), name)
    await harness.transport.close()
    if name in ("append", "append_once"):  # these tell of each entry
        assert [type(result) for result in await method(*positional, **named)] == [BusUnavailable]
        return
    with pytest.raises(BusUnavailable):
        await method(*positional, **named)


def test_every_method_is_asked() -> None:
    """Those of all parts of the contracts are among them."""
    assert {("streams", "scan"), ("streams", "park"), ("streams", "claim"), ("records", "members")} <= set(METHODS)
    assert len(METHODS) > 40
