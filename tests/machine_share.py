"""How much of a processor this machine gives a test, so that a time can be held against the same run."""

from __future__ import annotations

import time

#: Processor time that is spent on finding out, in seconds.
SPENT = 0.1


def slowness() -> float:
    """Return how many seconds pass for one second of processor time: 1 on an idle machine, more on a busy one."""
    began, spent = time.monotonic(), time.thread_time()
    while time.thread_time() - spent < SPENT:
        pass
    return max(1.0, (time.monotonic() - began) / SPENT)
