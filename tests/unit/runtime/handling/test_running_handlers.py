"""Which handlers run, and since when: what limits and suspects go by."""

from __future__ import annotations

from hyperbus.clock import SystemClock
from hyperbus.runtime.handling.running_handlers import RunningHandlers


class Standing(SystemClock):
    """It is always 25."""

    def monotonic(self) -> float:  # type: ignore[override]
        return 25.0


def test_the_oldest_of_several_handlers_counts() -> None:
    """Whichever lane it runs in; lanes without one do not count."""
    running = RunningHandlers(4, Standing())
    assert (running.count(), running.oldest()) == (0, None)
    for began in ([20.0, 10.0, 0.0, 24.0], [10.0, 0.0, 20.0, 24.0], [24.0, 20.0, 0.0, 10.0]):
        running.began[:] = began
        assert (running.count(), running.oldest()) == (3, 15.0)
