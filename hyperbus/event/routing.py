"""Event type ⇄ stream key, and which types a consumer's patterns cover. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from hyperbus.errors import DeclarationError, InvalidSettingError
from hyperbus.event.data import TYPE_PATTERN, check_type

#: What a prefix, and a group, may look like. No braces: they would break the cluster slot of a stream's own keys.
NAME_PATTERN = re.compile(r"[A-Za-z0-9_.-]+")
#: The prefix of stream keys unless one is chosen.
DEFAULT_PREFIX = "events"
_GLOB_PATTERN = re.compile(r"[a-z0-9_.*]+")


def check_name(kind: str, name: str) -> str:
    """Return `name` if it can be a `kind` ("prefix" or "group").

    Raises:
        InvalidSettingError: it cannot.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidSettingError(f"{name!r} cannot be a {kind}: use letters, digits, dots, dashes and underscores")
    return name


def stream_key(prefix: str, event_type: str) -> str:
    """Return the key of the stream that holds events of `event_type`."""
    return f"{prefix}:{event_type}"


def type_in(prefix: str, stream: str) -> str | None:
    """Return the event type of a stream key; None for a key that is not an event type's stream."""
    head, separator, event_type = stream.partition(":")
    if head != prefix or not separator or not TYPE_PATTERN.fullmatch(event_type):
        return None
    return event_type


class TypeFilter:
    """Which event types a list of names and globs covers. In a glob, `*` matches any run of characters, dots too."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(dict.fromkeys(patterns))
        for pattern in self.patterns:
            _check_pattern(pattern)
        #: The plain names among the patterns: streams that are known before they exist.
        self.names = tuple(pattern for pattern in self.patterns if "*" not in pattern)
        #: The globs among the patterns: streams that have to be discovered.
        self.globs = tuple(pattern for pattern in self.patterns if "*" in pattern)
        self._match = re.compile("|".join(map(_expression, self.patterns)) or r"(?!)").fullmatch

    def matches(self, event_type: str) -> bool:
        """Tell whether `event_type` is covered."""
        return self._match(event_type) is not None

    def overlaps(self, other: TypeFilter) -> bool:
        """Tell whether some event type can be covered by both."""
        return any(_can_both_match(mine, theirs) for mine in self.patterns for theirs in other.patterns)


def _expression(pattern: str) -> str:
    """Return a regular expression for a glob; atomic, as trying every way to place many stars would take for ever."""
    first, *rest = map(re.escape, re.sub(r"\*+", "*", pattern).split("*"))
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>.*?{part})" for part in middle) + ".*" + last


def _check_pattern(pattern: str) -> None:
    if "*" not in pattern:
        check_type(pattern)
    elif not _GLOB_PATTERN.fullmatch(pattern):
        raise DeclarationError(
            f"{pattern!r} cannot be a glob of event types: only `*` is special, the rest is "
            f"lower-case letters, digits, underscores and dots"
        )


@functools.lru_cache(maxsize=4096)
def _can_both_match(first: str, second: str) -> bool:
    """Tell whether a string exists that both globs match, by walking the two from the left."""
    if not first or not second:
        return set(first + second) <= {"*"}
    if first[0] == "*":
        return _can_both_match(first[1:], second) or _can_both_match(first, second[1:])
    if second[0] == "*":
        return _can_both_match(second, first)
    return first[0] == second[0] and _can_both_match(first[1:], second[1:])
