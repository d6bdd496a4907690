"""How long entries of a type stay: what an event class declares. Pure; the runtime does the cutting."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from hyperbus.clock import Seconds
from hyperbus.errors import DeclarationError


class Keep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much of a stream stays once every live group has acked it.

    class Audited(EventData, type="audited", retention=Keep(age=30 * 86_400)): ...

    Each measure that is given bounds the acked part, oldest first; one that is not given bounds nothing, so that
    `Keep()` keeps everything. What a live group has yet to ack stays in any case, unless `hard` says otherwise.

    Args:
        age: an acked entry goes when it is older than this many seconds.
        entries: the oldest acked entries go when there are more than about this many.
        bytes: the oldest acked entries go when they weigh more than about this much.
        hard: `entries` and `bytes` bound the whole stream. Entries that a group has not read may then be cut; each
            is counted, and a warning comes before the first.
    """

    age: Seconds | None = None
    entries: int | None = None
    bytes: int | None = None
    hard: bool = False

    def __post_init__(self) -> None:
        """Refuse what nothing can be kept by."""
        for name in ("age", "entries", "bytes"):
            value = getattr(self, name)
            if value is not None and not (0 <= value < math.inf if name == "age" else value >= 1):
                raise DeclarationError(f"Keep({name}={value!r}): give a positive number, or leave {name} out")
        if self.hard and self.entries is None and self.bytes is None:
            raise DeclarationError("Keep(hard=True) caps nothing: give entries= or bytes= as well")


class Declared(msgspec.Struct, frozen=True):
    """A policy and the class that declared it, as other processes find it written down."""

    keep: Keep
    place: str


def check_keep(retention: Any) -> Keep:
    """Return `retention` if it is a policy.

    Raises:
        DeclarationError: it is not.
    """
    if not isinstance(retention, Keep):
        raise DeclarationError(f"retention={retention!r} has to be a Keep, such as retention=Keep(age=3600)")
    return retention


def write_declared(declared: Declared) -> bytes:
    """Write a policy down for other processes."""
    return msgspec.json.encode(declared)


def read_declared(written: bytes | None) -> Declared | None:
    """Read what `write_declared` wrote; None for nothing, and for what cannot be read."""
    if written is None:
        return None
    try:
        return msgspec.json.decode(written, type=Declared)
    except (msgspec.MsgspecError, DeclarationError, ValueError, RecursionError):  # anybody can write a record
        return None
