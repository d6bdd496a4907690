"""Backoff and its waits, and the policy of each type of error."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbus.declaration.outcome import ACKED, Acked, Reject, Retry
from hyperbus.declaration.retry_policy import Backoff, check_policies, policy_for
from hyperbus.errors import DeclarationError, HyperbusError

chances = st.floats(0, 1, exclude_max=True)


@st.composite
def policies(draw: st.DrawFn, jitter: st.SearchStrategy[float] = st.floats(0, 1)) -> Backoff:  # noqa: B008 - never changed
    initial = draw(st.just(0.0) | st.floats(0, 1e6))
    return Backoff(
        initial=initial,
        factor=draw(st.floats(1, 1e6) | st.integers(1, 10)),
        maximum=draw(st.floats(initial, 1e9)),
        jitter=draw(jitter),
    )


@given(policy=policies(), tries=st.integers(1, 100_000), chance=chances)
def test_a_wait_is_never_negative_and_never_above_the_maximum(policy: Backoff, tries: int, chance: float) -> None:
    """However often it was tried: powers overflow, waits do not."""
    assert 0 <= policy.wait(tries, chance) <= policy.maximum


@given(policy=policies(jitter=st.just(0.0)), tries=st.integers(1, 10_000), chance=chances)
def test_without_jitter_a_wait_never_gets_shorter(policy: Backoff, tries: int, chance: float) -> None:
    """And chance has no say."""
    assert policy.wait(tries, chance) <= policy.wait(tries + 1, 0.0)


@given(policy=policies(), tries=st.integers(1, 10_000), chance=chances)
def test_jitter_shortens_a_wait_by_its_share_at_most(policy: Backoff, tries: int, chance: float) -> None:
    """It never makes one longer."""
    full = policy.wait(tries, 0.0)
    wait = policy.wait(tries, chance)
    assert wait <= full
    assert wait >= full * (1 - policy.jitter) or math.isclose(wait, full * (1 - policy.jitter))


@given(tries=st.integers(1, 10_000))
def test_no_initial_wait_is_no_wait_at_all(tries: int) -> None:
    """Zero times anything."""
    assert Backoff(initial=0).wait(tries, 0.5) == 0


def test_waits_grow_by_the_factor_up_to_the_maximum() -> None:
    """The numbers that the documentation promises."""
    policy = Backoff(initial=0.5, factor=2, maximum=3, jitter=0)
    assert [policy.wait(tries, 0.0) for tries in (1, 2, 3, 4, 5, 5000)] == [0.5, 1, 2, 3, 3, 3]
    assert Backoff(initial=1, factor=1, maximum=1, jitter=0.5).wait(1, 0.5) == 0.75


@pytest.mark.parametrize(
    "options",
    [
        {"initial": -1},
        {"initial": math.inf, "maximum": math.inf},
        {"initial": math.nan},
        {"factor": 0.5},
        {"factor": math.inf},
        {"factor": math.nan},
        {"initial": 5, "maximum": 4},
        {"maximum": math.inf},
        {"maximum": math.nan},
        {"tries": 0},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"jitter": math.nan},
    ],
    ids=str,
)
def test_a_policy_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    """The message says what each number may be."""
    with pytest.raises(DeclarationError, match=r"^Backoff\(.*\) cannot be used: initial >= 0, factor >= 1"):
        Backoff(**options)


@pytest.mark.parametrize("after", [-1, -0.001, math.inf, math.nan])
def test_a_retry_at_no_possible_time_is_refused(after: float) -> None:
    """The traceback then shows the handler's own line."""
    with pytest.raises(ValueError, match=r"give a number of seconds from 0 up"):
        Retry(after=after)


def test_retry_and_reject_say_what_was_decided() -> None:
    """They are decisions of a handler, no errors of hyperbus."""
    assert str(Retry()) == "retry"
    assert str(Retry(after=5)) == "retry after 5 s"
    assert (str(Reject()), Reject("bad").reason) == ("rejected", "bad")
    assert not isinstance(Retry(), HyperbusError)
    assert not isinstance(Reject(), HyperbusError)
    assert Acked() == ACKED


# -- a policy for each type of error

FEW, MANY, SOME = Backoff(tries=2), Backoff(tries=99), Backoff(tries=5)


class BusyError(OSError):
    pass


class Later(Retry):
    pass


@pytest.mark.parametrize(
    ("error", "policies", "policy"),
    [
        (OSError(), {OSError: FEW}, FEW),
        (BusyError(), {OSError: FEW}, FEW),
        (BusyError(), {OSError: FEW, BusyError: MANY}, MANY),
        (BusyError(), {BusyError: MANY, OSError: FEW, Exception: SOME}, MANY),
        (BusyError(), {Exception: SOME}, SOME),
        (BusyError(), {OSError: None, Exception: SOME}, None),
        (KeyError(), {OSError: None}, Backoff()),
        (KeyError(), {Exception: None}, None),
        (asyncio.CancelledError(), {Exception: SOME}, SOME),
        (asyncio.CancelledError(), {OSError: FEW}, Backoff()),
        (TimeoutError(), {OSError: FEW}, FEW),
        (Retry(), {Exception: SOME}, SOME),
        (Retry(), {Exception: None}, Backoff()),
        (Retry(after=1), {Retry: FEW, Exception: None}, FEW),
        (Later(), {Retry: FEW}, FEW),
        (KeyError(), SOME, SOME),
        (KeyError(), {}, Backoff()),
    ],
    ids=str,
)
def test_the_policy_of_the_most_specific_class_holds(
    error: BaseException, policies: Any, policy: Backoff | None
) -> None:
    """`Exception` stands for what is not named, and None for never; who asks for a retry is not refused one."""
    assert policy_for(error, policies) == policy


@pytest.mark.parametrize(
    ("policies", "words"),
    [
        ([OSError], "has to be a Backoff(...), or a mapping of exception types to them"),
        ({OSError(): None}, "maps OSError(), which is no type of exception"),
        ({asyncio.CancelledError: None}, "which is no type of exception"),
        ({OSError: 3}, "maps OSError to 3; give a Backoff(...), or None for never"),
        ({Reject: FEW}, "maps Reject; what is rejected is never tried again: drop it"),
        ({Later: None}, "maps Later to None; who raises it wants another try: drop it"),
    ],
    ids=str,
)
def test_policies_that_mean_nothing_are_refused(policies: Any, words: str) -> None:
    """Each refusal says what to do instead."""
    with pytest.raises(DeclarationError, match=re.escape(words)):
        check_policies(policies)


def test_policies_that_fit_are_taken() -> None:
    """Retry may have one: how many times, and how long to wait where it names no time."""
    check_policies({OSError: FEW, Retry: MANY, Exception: None})
