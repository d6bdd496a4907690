"""What an event class declares of how long its entries stay."""

from __future__ import annotations

import msgspec
import pytest

from hyperbus.errors import DeclarationError
from hyperbus.event.data import EventData, declared_retention, event_types, retention_of
from hyperbus.event.retention import Declared, Keep, read_declared, write_declared


class Kept(EventData, retention=Keep(age=60)):
    pass


class Inherits(Kept, type="retention_test.inherits"):
    pass


class Overrides(Kept, type="retention_test.overrides", retention=Keep(entries=1000, bytes=2000, hard=True)):
    retention: int = 7


class Silent(EventData, type="retention_test.silent"):
    pass


def test_a_class_keyword_declares_the_policy_and_is_inherited() -> None:
    """A class of its own wins over its base; one without says nothing."""
    assert retention_of(Inherits) == Keep(age=60)
    assert retention_of(Overrides) == Keep(entries=1000, bytes=2000, hard=True)
    assert retention_of(Silent) is None


def test_a_field_of_that_name_is_the_users_own() -> None:
    """The keyword takes no name away."""
    assert Overrides().retention == 7
    assert msgspec.json.decode(b'{"retention":9}', type=Overrides).retention == 9


def test_declarations_name_their_class() -> None:
    """So that only the class that declared a policy takes it back."""
    declared = declared_retention(event_types())
    place = f"{__name__}.Inherits"
    assert declared["retention_test.inherits"] == Declared(Keep(age=60), place)
    assert declared["retention_test.silent"] == f"{__name__}.Silent"


@pytest.mark.parametrize("keep", [Keep(), Keep(age=0), Keep(age=1.5, entries=3, bytes=9, hard=True)])
def test_a_policy_survives_being_written_down(keep: Keep) -> None:
    """Other processes read what it was."""
    assert read_declared(write_declared(Declared(keep, "m.C"))) == Declared(keep, "m.C")


@pytest.mark.parametrize("written", [None, b"", b"{}", b'{"keep":{"age":-1},"place":"m.C"}', b"\xff"])
def test_what_cannot_be_read_declares_nothing(written: bytes | None) -> None:
    """Rubbish must not stop the one who cuts."""
    assert read_declared(written) is None


@pytest.mark.parametrize(
    "options",
    [{"age": -1}, {"age": float("nan")}, {"entries": 0}, {"bytes": 0}, {"hard": True}, {"age": 1, "hard": True}],
)
def test_a_policy_that_means_nothing_is_refused(options: dict[str, float]) -> None:
    """At its declaration, with what to do."""
    with pytest.raises(DeclarationError, match=r"give|leave"):
        Keep(**options)  # type: ignore[arg-type]


def test_only_a_policy_is_a_retention() -> None:
    """Not a number, however plain its meaning."""
    with pytest.raises(DeclarationError, match="has to be a Keep"):

        class Wrong(EventData, type="retention_test.wrong", retention=3600):  # type: ignore[arg-type]
            pass
