"""Where the examples of property tests come from, and how many are tried.

Profile `same`, the usual one, tries the same on every machine and in every run; `search` looks for new ones.
HYPERBUS_TEST_EXAMPLES=10 tries ten times as many.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = float(os.environ.get("HYPERBUS_TEST_EXAMPLES", "1"))


def examples(number: int) -> int:
    """Return how many examples to try where `number` do for every day."""
    return max(1, round(number * TIMES))


def register_profiles() -> None:
    """Make both known, and use `same`.

    Neither minds how long an example takes, to be drawn or to be tried: that says how busy the machine is.
    """
    number = examples(100)
    settings.register_profile(
        "same",
        derandomize=True, database=None, deadline=None, max_examples=number,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    settings.register_profile(
        "search",
        derandomize=False, database=None, deadline=None, max_examples=number, print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    settings.load_profile("same")
