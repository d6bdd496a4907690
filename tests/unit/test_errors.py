"""Errors: one tree, one exit code each, and a page that lists them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbus import errors
from hyperbus.errors import (
    BusUnavailable,
    HyperbusError,
    NotDurable,
    PublishFailed,
    PublishRefusedError,
    PublishUncertain,
)

ROOT = Path(__file__).parents[2]


def tree(kind: type[HyperbusError] = HyperbusError) -> Iterator[type[HyperbusError]]:
    """Yield the errors of errors.py."""
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from tree(below)


def test_every_error_of_the_module_belongs_to_the_tree() -> None:
    """`except HyperbusError` misses none."""
    defined = {thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, Exception)}
    assert defined == set(tree())


def test_every_error_has_an_exit_code_of_its_own() -> None:
    """Scripts tell them apart; 0, 2 and what a shell uses for signals are taken."""
    codes = [kind.exit_code for kind in tree()]
    assert len(codes) == len(set(codes))
    assert all(0 < code < 126 and code != 2 for code in codes)


def test_the_page_of_exit_codes_lists_each_error() -> None:
    """docs/exit-codes.md and the code say the same."""
    page = (ROOT / "docs/exit-codes.md").read_text()
    listed = {int(code): name for code, name in re.findall(r"^\| (\d+) \| `(\w+)` \| \S", page, re.MULTILINE)}
    assert listed == {kind.exit_code: kind.__name__ for kind in tree()}


def test_a_publish_that_failed_in_part_counts_what_happened() -> None:
    """Stored, uncertain and not stored, and the first error in full."""
    results = ["1-0", PublishRefusedError("no"), PublishUncertain("perhaps"), "1-1", BusUnavailable("gone")]
    error = PublishFailed(results)
    assert error.results == tuple(results)
    assert str(error) == (
        "2 of 5 events stored, 1 uncertain, 2 not stored (see .results, one an event); first error: no"
    )


@pytest.mark.parametrize("kind", [errors.AuthenticationError, errors.NoServerError])
def test_a_server_that_cannot_be_used_at_all_counts_as_unavailable(kind: type[HyperbusError]) -> None:
    """A caller that waits for the bus need name one error."""
    assert issubclass(kind, BusUnavailable)


def test_what_is_not_durable_counts_as_stored() -> None:
    """Publishing it again would be wrong."""
    error = NotDurable("1-1", "only 0 of 1 replicas had it")
    failed = PublishFailed(["1-0", error, PublishUncertain("?"), BusUnavailable("!")])
    assert error.entry_id == "1-1"
    assert str(failed).startswith("2 of 4 events stored, 1 uncertain, 1 not stored")
