"""Routing: stream keys, names, and what globs cover."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbus.errors import DeclarationError, InvalidSettingError
from hyperbus.event.routing import TypeFilter, check_name, stream_key, type_in

types = st.from_regex(r"[ab]+(\.[ab]+){0,2}", fullmatch=True)


@st.composite
def covering(draw: st.DrawFn, event_type: str) -> str:
    """Make a pattern that matches `event_type`, by hiding pieces of it behind stars."""
    pieces = []
    place = 0
    while place < len(event_type):
        hidden = draw(st.integers(0, len(event_type) - place))
        if draw(st.booleans()):
            pieces.append("*")
            place += hidden
        else:
            pieces.append(event_type[place])
            place += 1
    return "".join(pieces)


def test_a_type_and_its_stream_key_lead_to_each_other() -> None:
    """Under the prefix that was chosen."""
    assert stream_key("events", "workflow.started") == "events:workflow.started"
    assert type_in("events", "events:workflow.started") == "workflow.started"


@pytest.mark.parametrize(
    "stream",
    ["other:a", "events", "events:", "events:A", "events:@agent", "events:a:1", "{events:a}:dead:g", "event:a"],
)
def test_other_keys_are_no_streams_of_a_type(stream: str) -> None:
    """Inboxes, dead letters, partitions and other programs' keys."""
    assert type_in("events", stream) is None


@pytest.mark.parametrize("name", ["events", "A.b-c_9", "-", "0"])
def test_letters_digits_dots_dashes_and_underscores_are_names(name: str) -> None:
    """Of prefixes and of groups."""
    assert check_name("group", name) == name


@pytest.mark.parametrize("name", ["", "a b", "a:b", "{a}", "a*", "ä", "a\n"])
def test_other_names_are_refused_by_kind(name: str) -> None:
    """Braces would move a stream's own keys to another cluster slot; colons would end the prefix."""
    with pytest.raises(InvalidSettingError, match="cannot be a prefix: use letters, digits, dots"):
        check_name("prefix", name)


@pytest.mark.parametrize(
    ("pattern", "event_type", "covered"),
    [
        ("workflow.started", "workflow.started", True),
        ("workflow.started", "workflow.started.late", False),
        ("workflow.started", "workflowxstarted", False),
        ("workflow.*", "workflow.started", True),
        ("workflow.*", "workflow.step.done", True),
        ("workflow.*", "workflow", False),
        ("workflow.*", "workflows.started", False),
        ("*", "anything.at.all", True),
        ("*.failed", "a.b.failed", True),
        ("*.failed", "failed", False),
        ("a*c", "ac", True),
        ("a*c", "a.b.c", True),
        ("a**c", "abc", True),
        ("a*b*c", "a.c.b", False),
    ],
)
def test_a_star_matches_any_run_of_characters_dots_too(pattern: str, event_type: str, covered: bool) -> None:
    """Everything else stands for itself."""
    assert TypeFilter([pattern]).matches(event_type) is covered


def test_a_filter_covers_what_any_of_its_patterns_covers() -> None:
    """Names and globs are told apart, and repeats dropped."""
    chosen = TypeFilter(["a.*", "b.c", "a.*"])
    assert chosen.patterns == ("a.*", "b.c")
    assert (chosen.names, chosen.globs) == (("b.c",), ("a.*",))
    assert chosen.matches("a.x")
    assert chosen.matches("b.c")
    assert not chosen.matches("b.d")
    assert not TypeFilter([]).matches("a")


@pytest.mark.parametrize("pattern", ["A.*", "a-*", "a:*", "a?*", "[ab]*", " *", "*\n"])
def test_globs_of_other_characters_are_refused(pattern: str) -> None:
    """Only the star is special; the rest could never be part of a type."""
    with pytest.raises(DeclarationError, match="cannot be a glob of event types: only `\\*` is special"):
        TypeFilter([pattern])


@pytest.mark.parametrize("name", ["", "A", "a..b", "a?"])
def test_plain_names_have_to_be_event_types(name: str) -> None:
    """A name that no event can have would wait for ever."""
    with pytest.raises(DeclarationError, match="cannot be an event type"):
        TypeFilter([name])


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "a.b", False),
        ("*", "a", True),
        ("a.*", "*.b", True),
        ("a.*", "b.*", False),
        ("a*", "ab*c", True),
        ("*a", "*b", False),
        ("a*", "a", True),
        ("**", "*", True),
    ],
)
def test_overlap_is_seen_from_both_sides(first: str, second: str, both: bool) -> None:
    """Of one pattern each."""
    assert TypeFilter([first]).overlaps(TypeFilter([second])) is both
    assert TypeFilter([second]).overlaps(TypeFilter([first])) is both


def test_filters_overlap_where_any_two_of_their_patterns_do() -> None:
    """And an empty one with nothing."""
    assert TypeFilter(["x", "a.b"]).overlaps(TypeFilter(["y", "a.*"]))
    assert not TypeFilter([]).overlaps(TypeFilter(["*"]))


@given(event_type=types, data=st.data())
def test_two_patterns_that_cover_one_type_overlap(event_type: str, data: st.DataObject) -> None:
    """Else one event would reach only one of two consumers, unseen."""
    first = TypeFilter([data.draw(covering(event_type))])
    second = TypeFilter([data.draw(covering(event_type))])
    assert first.matches(event_type)
    assert second.matches(event_type)
    assert first.overlaps(second)


@given(first=types, second=types)
def test_two_names_overlap_only_when_they_are_one(first: str, second: str) -> None:
    """No star, no doubt."""
    assert TypeFilter([first]).overlaps(TypeFilter([second])) is (first == second)


@given(event_type=types, pattern=st.text("ab.*", min_size=1, max_size=8).filter(lambda text: "*" in text))
def test_a_glob_matches_as_the_shell_s_do(event_type: str, pattern: str) -> None:
    """Held against another implementation; it knows no other special characters here."""
    assert TypeFilter([pattern]).matches(event_type) is fnmatchcase(event_type, pattern)


def test_a_glob_full_of_stars_is_matched_quickly() -> None:
    """Trying every way to place the stars would take for ever."""
    assert not TypeFilter(["*a" * 40]).matches("a" * 200 + "b")
    assert TypeFilter(["*a" * 40]).matches("a" * 200)


def test_overlap_of_patterns_full_of_stars_is_found_quickly() -> None:
    """The walk would take for ever if it did not remember where it has been."""
    assert not TypeFilter(["*a" * 40]).overlaps(TypeFilter(["*b" * 40]))
