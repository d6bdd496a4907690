"""Whether what failed is tried again or given up. Pure: what happened goes in, an outcome comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hyperbus.clock import Seconds
from hyperbus.declaration.outcome import ACKED, DeadLettered, Outcome, Reject, Retried, Retry
from hyperbus.declaration.retry_policy import Backoff


def decide(error: BaseException | None, *, tries: int, policy: Backoff | None, chance: Callable[[], float]) -> Outcome:
    """Return how a delivery ends, given what its handler raised and how often it has been tried, this time included.

    Without a policy, this error is not tried again.
    """
    if error is None:
        return ACKED
    kind = type(error)  # not `isinstance`: that asks the exception itself, which may answer anything
    if issubclass(kind, Reject) or policy is None:
        return DeadLettered("rejected", error)
    if tries >= policy.tries:
        return DeadLettered("exhausted", error)
    after = _after(error) if issubclass(kind, Retry) else None
    return Retried(policy.wait(tries, chance()) if after is None else after, error)


def _after(asked: Any) -> Seconds | None:
    """Return the wait that was asked for; None where that is none: a subclass may have left it out, or set it since."""
    try:
        after = None if asked.after is None else float(asked.after)
    except BaseException:  # noqa: BLE001 - it is a user's object
        return None
    return after if after is not None and 0 <= after < float("inf") else None
