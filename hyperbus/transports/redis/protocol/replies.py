"""What a server's error replies mean: the one place that turns them into errors of hyperbus. It does no I/O."""

from __future__ import annotations

from hyperbus.errors import (
    AuthenticationError,
    BusUnavailable,
    GroupNotFoundError,
    HyperbusError,
    OutOfMemoryError,
    ServerError,
    WrongTypeError,
)


class Refusal(Exception):  # noqa: N818 - it is a reply, an item of a list of replies; it is never raised
    """An error reply, as it came off the wire."""


#: By first word: the server is there but cannot do its work now. Asking again, over a new connection, may help.
_AWAY = frozenset({"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS"})

_NAMED: dict[str, tuple[type[HyperbusError], str]] = {
    "NOGROUP": (GroupNotFoundError, "the stream or its group is gone"),
    "UNBLOCKED": (GroupNotFoundError, "the stream or its group went away during the read"),
    "WRONGTYPE": (WrongTypeError, "a key that should be a stream or a record holds something else"),
    "OOM": (OutOfMemoryError, "the server is at its maxmemory: raise it, trim streams, or let consumers catch up"),
    "NOAUTH": (AuthenticationError, "the server asks for a password: put it in the URL, redis://:password@host"),
    "WRONGPASS": (AuthenticationError, "the server refused the user name or the password: check the URL"),
    "NOPERM": (ServerError, "this user may not do that: extend its ACL, see docs/redis-keys.md"),
    "MISCONF": (ServerError, "the server cannot save to its disk and takes no writes until it can"),
    "MOVED": (ServerError, "this is a node of a cluster, which redis:// does not follow"),
    "CROSSSLOT": (ServerError, "this is a node of a cluster, which redis:// does not follow"),
}


def is_away(refusal: Refusal) -> bool:
    """Tell whether a new connection may get a better answer: the server loads, was demoted, or is cut off."""
    text = str(refusal)
    return text.split(" ", 1)[0] in _AWAY or (text.startswith("UNBLOCKED") and "state changed" in text)


def is_wake(refusal: Refusal) -> bool:
    """Tell whether somebody ended a blocked read with CLIENT UNBLOCK ... ERROR; that is no error of ours."""
    return str(refusal).startswith("UNBLOCKED client unblocked via CLIENT UNBLOCK")


def is_missing(refusal: Refusal) -> bool:
    """Tell whether the key or the group that was asked about does not exist."""
    text = str(refusal)
    return text.startswith(("NOGROUP", "ERR no such key")) or "requires the key to exist" in text


def error_of(refusal: Refusal, place: str) -> HyperbusError:
    """Return the error that a refusal by the server at `place` stands for."""
    text = str(refusal)
    if is_away(refusal):
        return BusUnavailable(f"{place} cannot serve now: {text}")
    if "requires the key to exist" in text:
        return GroupNotFoundError(f"{place}: the stream is gone: {text}")
    kind, advice = _NAMED.get(text.split(" ", 1)[0], (ServerError, ""))
    return kind(f"{place}: {advice}: {text}" if advice else f"{place} answered: {text}")
