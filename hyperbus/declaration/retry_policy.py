"""How often a handler is tried, and after what waits, as a consumer declares it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hyperbus.clock import Seconds
from hyperbus.declaration.outcome import Reject, Retry
from hyperbus.errors import DeclarationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with jitter.

    Args:
        initial: the wait after the first failure, in seconds.
        factor: what each wait is multiplied by to give the next.
        maximum: no wait is longer than this, in seconds.
        tries: how many times a handler is tried in all; then the entry becomes a dead letter.
        jitter: a wait is shortened by up to this share of itself, at random, so that failures that came
            together do not come back together; 0 to 1.
    """

    initial: Seconds = 0.2
    factor: float = 2.0
    maximum: Seconds = 30.0
    tries: int = 8
    jitter: float = 0.25

    def __post_init__(self) -> None:
        fits = (
            0 <= self.initial < float("inf")
            and 1 <= self.factor < float("inf")
            and self.initial <= self.maximum < float("inf")
            and self.tries >= 1
            and 0 <= self.jitter <= 1
        )
        if not fits:
            raise DeclarationError(
                f"{self} cannot be used: initial >= 0, factor >= 1, maximum >= initial, tries >= 1, "
                f"jitter between 0 and 1"
            )

    def wait(self, tries: int, chance: float) -> Seconds:
        """Return the wait after `tries` failures (1 or more); `chance` lies in [0, 1) and places it in the jitter."""
        try:
            full = self.initial * float(self.factor) ** (tries - 1)
        except OverflowError:
            full = self.maximum if self.initial else 0.0
        return min(full, self.maximum) * (1 - self.jitter * chance)


#: A policy for each type of exception; None: never again. `Exception` stands for all that are not named.
Policies = Mapping[type[Exception], Backoff | None]
_DEFAULT = Backoff()


def check_policies(policies: Policies) -> None:
    """Check that every type can be looked up, and has a policy that can be used.

    Raises:
        DeclarationError: it has not; the message says which.
    """
    if not isinstance(policies, Mapping):
        raise DeclarationError(f"retry={policies!r} has to be a Backoff(...), or a mapping of exception types to them")
    for kind, policy in policies.items():
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            raise DeclarationError(f"retry= maps {kind!r}, which is no type of exception")
        if policy is not None and not isinstance(policy, Backoff):
            raise DeclarationError(f"retry= maps {kind.__name__} to {policy!r}; give a Backoff(...), or None for never")
        if issubclass(kind, Reject):
            raise DeclarationError(f"retry= maps {kind.__name__}; what is rejected is never tried again: drop it")
        if issubclass(kind, Retry) and policy is None:
            raise DeclarationError(f"retry= maps {kind.__name__} to None; who raises it wants another try: drop it")


def policy_for(error: BaseException, retry: Backoff | Policies) -> Backoff | None:
    """Return the policy that holds for an error: that of its most specific class; None: never again.

    `Retry` asks for another try: no policy that was meant for failures in general forbids it.
    """
    if isinstance(retry, Backoff):
        return retry
    kinds = type(error).__mro__
    try:
        policy = retry.get(next((kind for kind in kinds if kind in retry), Exception), _DEFAULT)
    except BaseException:  # noqa: BLE001 - looking a class up asks its metaclass, which is a user's code too
        policy = retry.get(Exception, _DEFAULT)
    return _DEFAULT if policy is None and issubclass(type(error), Retry) else policy
