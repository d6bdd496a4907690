"""Whether what failed is tried again or given up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbus.declaration.outcome import ACKED, DeadLettered, Reject, Retried, Retry
from hyperbus.declaration.retry_policy import Backoff
from hyperbus.runtime.outcomes.retry_or_dead_letter import decide

chances = st.floats(0, 1, exclude_max=True)
policies = st.builds(Backoff, initial=st.floats(0, 30), tries=st.integers(1, 20), jitter=st.floats(0, 1))

REJECT = Reject("no such network")
ERROR = ValueError("busy")


@pytest.mark.parametrize(
    ("error", "tries", "outcome"),
    [
        (None, 1, ACKED),
        (None, 99, ACKED),
        (REJECT, 1, DeadLettered("rejected", REJECT)),
        (REJECT, 3, DeadLettered("rejected", REJECT)),
        (ERROR, 1, Retried(1.0, ERROR)),
        (ERROR, 2, Retried(2.0, ERROR)),
        (ERROR, 3, DeadLettered("exhausted", ERROR)),
        (ERROR, 4, DeadLettered("exhausted", ERROR)),
    ],
    ids=str,
)
def test_what_happened_decides_the_outcome(error: BaseException | None, tries: int, outcome: object) -> None:
    """Done, tried again, or given up: by the error and by how often it was tried."""
    policy = Backoff(initial=1, factor=2, tries=3, jitter=0)
    assert decide(error, tries=tries, policy=policy, chance=lambda: 0.0) == outcome


@pytest.mark.parametrize(
    ("after", "tries", "outcome"),
    [(5.0, 1, "after 5"), (0.0, 2, "after 0"), (None, 2, "after 2"), (5.0, 3, "exhausted")],
)
def test_a_handler_that_asks_for_a_retry_gets_one_until_its_tries_are_up(
    after: float | None, tries: int, outcome: str
) -> None:
    """At the time it named, or at the policy's."""
    error = Retry(after=after)
    decided = decide(error, tries=tries, policy=Backoff(initial=1, tries=3, jitter=0), chance=lambda: 0.0)
    if outcome == "exhausted":
        assert decided == DeadLettered("exhausted", error)
    else:
        assert decided == Retried(float(outcome.removeprefix("after ")), error)


def test_chance_is_asked_only_for_a_wait_of_the_policy() -> None:
    """And its answer places the wait."""
    policy = Backoff(initial=1, tries=3, jitter=0.5)
    assert decide(ERROR, tries=1, policy=policy, chance=lambda: 0.5) == Retried(0.75, ERROR)
    for error in (None, REJECT, Retry(after=1)):
        decide(error, tries=1, policy=policy, chance=lambda: pytest.fail("asked for nothing"))


@given(tries=st.integers(1, 10_000), after=st.none() | st.floats(0, 1e9), chance=chances)
def test_without_a_policy_nothing_is_ever_tried_again(tries: int, after: float | None, chance: float) -> None:
    """The first failure is the last."""
    for error in (ERROR, REJECT, Retry(after=after)):
        assert decide(error, tries=tries, policy=None, chance=lambda: chance) == DeadLettered("rejected", error)
    assert decide(None, tries=tries, policy=None, chance=lambda: chance) == ACKED


@given(policy=policies, tries=st.integers(1, 20), chance=chances)
def test_tries_are_never_more_than_the_policy_allows(policy: Backoff, tries: int, chance: float) -> None:
    """And below that no failure is final."""
    decided = decide(ERROR, tries=tries, policy=policy, chance=lambda: chance)
    assert isinstance(decided, DeadLettered) == (tries >= policy.tries)
    if isinstance(decided, Retried):
        assert 0 <= decided.after <= policy.maximum
