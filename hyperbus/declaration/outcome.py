"""How a delivery can end, and what a handler raises to choose."""

from __future__ import annotations

from dataclasses import dataclass

from hyperbus.clock import Seconds


class Retry(Exception):  # noqa: N818 - it is a decision, not an error
    """Raised by a handler: try this delivery again, in `after` seconds; None leaves the wait to the policy.

    It counts as a try like any other.
    """

    def __init__(self, *, after: Seconds | None = None) -> None:
        if after is not None and not 0 <= after < float("inf"):
            raise ValueError(f"Retry(after={after!r}): give a number of seconds from 0 up")
        self.after = after
        super().__init__("retry" if after is None else f"retry after {after} s")


class Reject(Exception):  # noqa: N818 - it is a decision, not an error
    """Raised by a handler: never try this delivery again; it becomes a dead letter with this reason."""

    def __init__(self, reason: str = "rejected") -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Acked:
    """The delivery is done."""


@dataclass(frozen=True, slots=True)
class Retried:
    """The delivery will be tried again in `after` seconds."""

    after: Seconds
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """The delivery is given up. `reason` is one of the words of `transport.DeadLetter`."""

    reason: str
    error: BaseException | None


Outcome = Acked | Retried | DeadLettered
#: The one way to be done.
ACKED = Acked()
