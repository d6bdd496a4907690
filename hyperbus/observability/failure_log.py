"""Logs what failed: each failure with its traceback, and many of them summed up, so that no flood fills the log."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from contextlib import suppress
from typing import Any

from hyperbus.clock import Clock, Seconds, SystemClock
from hyperbus.error_text import describe, error_info, name_of, place_of, traceback_of
from hyperbus.log_values import MAX_VALUE_LENGTH
from hyperbus.logger import get_logger
from hyperbus.signals import DeliveryFailed, LocalHandlerFailed

#: Tracebacks of one kind of failure, in a second; a traceback of more lines counts for several.
_LINES_OF_ONE: float = 8
#: Failures without a traceback that may come beside it, at once and in a second.
_MOST_AT_ONCE = 2.0
#: How far kinds of failure that are new may go beyond that: each is shown once, whatever else floods.
_MOST_NEW = 5.0
#: A kind that was not seen for this long is new again; and how many kinds are remembered.
_FORGET_AFTER: Seconds = 10.0
_MOST_KINDS = 100
#: How often what was left out is summed up, and how many kinds that names.
_SUM_EVERY: Seconds = 1.0
_MOST_NAMED = 3

_Failed = DeliveryFailed | LocalHandlerFailed
_Kind = tuple[str, str, str]
_WORDS = {
    "raised": "handler failed",
    "retry": "handler asks for another try",
    "reject": "handler rejected an event",
    "undecodable": "event cannot be read",
    "poison": "event kills the process that handles it",
}


class FailureLog:
    """Logs failures as they come, while they are few.

    1. The first of a kind (who failed, and with which error) is logged with its traceback, and so is one a second.
    2. One or two more a second are logged without it.
    3. The rest is counted, and told of once a second.

    All kinds share what may be logged; only what is new may go beyond it.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._log = get_logger("hyperbus.failures")
        self._full = 1.0
        self._short = _MOST_AT_ONCE
        self._filled_at = self._clock.monotonic()
        self._seen: OrderedDict[_Kind, float] = OrderedDict()
        self._left_out: Counter[_Kind] = Counter()
        self._summing: asyncio.TimerHandle | None = None

    def __call__(self, failed: _Failed) -> None:
        """Log a failure, or count it."""
        self._fill()
        asked = isinstance(failed, DeliveryFailed) and failed.cause in ("retry", "reject")
        kind = (_who(failed), name_of(failed.error), "" if asked else place_of(failed.error))
        if self._full >= 1 or (self._full > -_MOST_NEW and self._is_new(kind)):
            trace = traceback_of(failed.error, MAX_VALUE_LENGTH)
            cause = vars(BaseException)["__cause__"].__get__(failed.error)
            has_trace = "\n" in trace.strip() and not (asked and cause is None)
            self._full -= max(1.0, trace.count("\n") / _LINES_OF_ONE) if has_trace else 0.5
            self._tell(failed, kind, with_trace=has_trace)
        elif self._short >= 1:
            self._short -= 1
            self._tell(failed, kind, with_trace=False)
        else:
            self._left_out[kind if len(self._left_out) < _MOST_KINDS or kind in self._left_out else _OTHERS] += _count(
                failed
            )
            self._sum_up_soon()

    def close(self) -> None:
        """Tell what was left out and not told yet."""
        if self._summing is not None:
            self._summing.cancel()
            self._summing = None
        self._sum_up()

    # -- how much

    def _fill(self) -> None:
        now = self._clock.monotonic()
        passed, self._filled_at = now - self._filled_at, now
        self._full = min(1.0, self._full + passed)
        self._short = min(_MOST_AT_ONCE, self._short + passed)

    def _is_new(self, kind: _Kind) -> bool:
        return self._clock.monotonic() - self._seen.get(kind, float("-inf")) > _FORGET_AFTER

    # -- telling

    def _tell(self, failed: _Failed, kind: _Kind, *, with_trace: bool) -> None:
        self._seen[kind] = self._clock.monotonic()
        self._seen.move_to_end(kind)
        if len(self._seen) > _MOST_KINDS:
            self._seen.popitem(last=False)
        level, words = _line(failed)
        values = _values(failed)
        if with_trace:
            values["exc_info"] = error_info(failed.error)
        elif kind[2]:
            values["at"] = kind[2]
        (self._log.error if level == "error" else self._log.warning)(words, **values)

    def _sum_up_soon(self) -> None:
        if self._summing is None:
            with suppress(RuntimeError):  # where nobody runs a loop, `close` tells
                self._summing = asyncio.get_running_loop().call_later(_SUM_EVERY, self._sum_up)

    def _sum_up(self) -> None:
        self._summing = None
        if not self._left_out:
            return
        left_out, self._left_out = self._left_out, Counter()
        most = [
            f"{who}: {error}{f' at {place}' if place else ''} ({count})"
            for (who, error, place), count in left_out.most_common(_MOST_NAMED)
        ]
        self._log.error("more failures, which are not shown one by one", count=left_out.total(), most_of_them=most)


_OTHERS: _Kind = ("others", "", "")


def _who(failed: _Failed) -> str:
    return failed.group if isinstance(failed, DeliveryFailed) else failed.handler


def _count(failed: _Failed) -> int:
    return failed.count if isinstance(failed, DeliveryFailed) else 1


def _line(failed: _Failed) -> tuple[str, str]:
    """Return the level and the sentence for a failure."""
    if isinstance(failed, LocalHandlerFailed):
        return "error", "local handler failed; the event is stored all the same"
    words = _WORDS[failed.cause]
    if failed.after is not None:
        return "warning", f"{words}; the event will be tried again"
    if failed.dead_lettered:
        return "error", f"{words}; it becomes a dead letter" if failed.cause != "raised" else (
            f"{words}; the event becomes a dead letter"
        )
    return "error", f"{words}; it is left out" if failed.cause == "undecodable" else (
        f"{words}; the event is not tried again"
    )


def _values(failed: _Failed) -> dict[str, Any]:
    """Return what a line says, in the order in which people ask."""
    values: dict[str, Any] = {}
    if isinstance(failed, LocalHandlerFailed):
        values["handler"] = failed.handler
    else:
        values["consumer"] = failed.consumer
    values["error"] = describe(failed.error)
    if isinstance(failed, DeliveryFailed):
        values["tries"] = failed.tries
        values["most_tries"] = failed.most_tries
        values["after"] = failed.after
        values["count"] = failed.count if failed.count > 1 else None
    values["type"] = failed.event_type
    values["workflow_id"] = failed.workflow_id
    values["event_id"] = failed.event_id
    if isinstance(failed, DeliveryFailed):
        values["entry_id"] = failed.entry_id
        values["group"] = failed.group
    return {name: value for name, value in values.items() if value is not None}
