"""Whether what failed is tried again or given up. Pure: what happened goes in, an outcome comes out."""

from __future__ import annotations

from collections.abc import Callable

from hyperbus.declaration.outcome import ACKED, DeadLettered, Outcome, Reject, Retried, Retry
from hyperbus.declaration.retry_policy import Backoff


def decide(error: BaseException | None, *, tries: int, policy: Backoff | None, chance: Callable[[], float]) -> Outcome:
    """Return how a delivery ends, given what its handler raised and how often it has been tried, this time included.

    Without a policy, this error is not tried again.
    """
    if error is None:
        return ACKED
    if isinstance(error, Reject) or policy is None:
        return DeadLettered("rejected", error)
    if tries >= policy.tries:
        return DeadLettered("exhausted", error)
    if isinstance(error, Retry) and error.after is not None:
        return Retried(error.after, error)
    return Retried(policy.wait(tries, chance()), error)
