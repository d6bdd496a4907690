"""Failures are told one by one while they are few, and summed up when they are many."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from hyperbus.observability.failure_log import FailureLog
from hyperbus.signals import DeliveryFailed, LocalHandlerFailed


class StillClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, delay: float) -> None:
        raise NotImplementedError


def failed(error: BaseException | None = None, **values: Any) -> DeliveryFailed:
    told: dict[str, Any] = {
        "consumer": "bill", "group": "billing", "stream": "events:a", "entry_id": "1-0", "event_type": "a",
        "event_id": "e-1", "workflow_id": None, "tries": 1, "most_tries": 8, "cause": "raised", "after": 0.2,
        "dead_lettered": False, "error": error or raised(ValueError("no")),
    }  # fmt: skip
    return DeliveryFailed(**told | values)


def raised(error: BaseException) -> BaseException:
    """Return an error that has a traceback."""
    try:
        raise error  # noqa: TRY301 - a traceback is wanted
    except BaseException as caught:
        return caught


def test_one_failure_a_second_is_told_each_time_with_its_traceback() -> None:
    """Nothing is left out of what a person can read."""
    clock = StillClock()
    log = FailureLog(clock=clock)
    with capture_logs() as logged:
        for _ in range(100):
            clock.time += 1
            log(failed())
        log.close()
    assert [bool(line.get("exc_info")) for line in logged] == [True] * 100


def test_ten_thousand_a_second_are_a_few_lines_and_a_sum() -> None:
    """For as long as they last."""
    clock = StillClock()
    log = FailureLog(clock=clock)
    with capture_logs() as logged:
        for _ in range(20_000):
            clock.time += 0.0001
            log(failed())
        log.close()
    lines = sum(1 + 5 * bool(line.get("exc_info")) for line in logged)
    assert lines < 40
    sums = [line for line in logged if line["event"].startswith("more failures")]
    assert sum(line["count"] for line in sums) + len(logged) - len(sums) == 20_000
    assert "billing: ValueError at test_failure_log.py" in sums[0]["most_of_them"][0]


def test_a_batch_counts_as_the_deliveries_that_failed_in_it() -> None:
    """In the line, and in the sum."""
    log = FailureLog(clock=StillClock())
    with capture_logs() as logged:
        for _ in range(10):
            log(failed(count=50))
        log.close()
    assert logged[0]["count"] == 50
    assert logged[-1]["count"] == 50 * (10 - (len(logged) - 1))


def test_what_is_new_is_shown_in_a_flood_but_not_without_a_bound() -> None:
    """Errors of a thousand kinds at once are a flood too."""
    log = FailureLog(clock=StillClock())
    kinds = [type(f"Error{number}", (Exception,), {}) for number in range(1_000)]
    with capture_logs() as logged:
        for _ in range(100):
            log(failed())
        for kind in kinds:
            log(failed(raised(kind("no"))))
        log.close()
    told = [line for line in logged if line.get("exc_info") and "Error" in line["error"]]
    assert 2 <= len(told) < 15
    assert logged[-1]["count"] == 1_100 - (len(logged) - 1)


def test_each_ending_has_its_words_and_level() -> None:
    """What comes next is what people ask first."""
    clock = StillClock()
    log = FailureLog(clock=clock)
    signals = [
        failed(),
        failed(after=None, dead_lettered=True),
        failed(after=None),
        failed(cause="undecodable", after=None, dead_lettered=True),
        failed(cause="poison", after=None, dead_lettered=True),
        LocalHandlerFailed(handler="show", event_type="a", event_id="e", workflow_id=None, error=raised(KeyError("k"))),
    ]
    with capture_logs() as logged:
        for signal in signals:
            clock.time += 10
            log(signal)
    assert [(line["log_level"], line["event"]) for line in logged] == [
        ("warning", "handler failed; the event will be tried again"),
        ("error", "handler failed; the event becomes a dead letter"),
        ("error", "handler failed; the event is not tried again"),
        ("error", "event cannot be read; it becomes a dead letter"),
        ("error", "event kills the process that handles it; it becomes a dead letter"),
        ("error", "local handler failed; the event is stored all the same"),
    ]
