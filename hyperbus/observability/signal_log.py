"""A listener that logs what is worth a line, each kind of signal at a bounded rate, so that no fault floods the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec.structs import asdict

from hyperbus.clock import Clock, Seconds, SystemClock
from hyperbus.logger import get_logger
from hyperbus.observability.failure_log import FailureLog
from hyperbus.signals import (
    Acknowledged,
    BoundReached,
    Claimed,
    ConnectionChanged,
    CutUnread,
    DeliveryFailed,
    Disowned,
    EntryDeadLettered,
    GhostStream,
    GroupAbandoned,
    GroupRebuilt,
    Handled,
    HardCapNear,
    LocalHandlerFailed,
    Published,
    Recovered,
    RefusalChanged,
    Signal,
    StreamsAwaited,
    StreamsFound,
    WorkerChanged,
)

#: Level and words of each kind of signal that is logged. Failures, and what they lead to, are told by the failure log.
_LINES: dict[type, tuple[str, str]] = {
    EntryDeadLettered: ("debug", "entry dead-lettered"),
    Claimed: ("warning", "entries of a dead worker claimed"),
    Recovered: ("warning", "entries delivered unnoticed were found again"),
    Disowned: ("warning", "the server lost its latest entries: what it had given this worker of them is not acked"),
    StreamsFound: ("info", "streams found"),
    StreamsAwaited: ("info", "nothing was ever published into these streams: they are waited for"),
    GroupRebuilt: ("warning", "lost group rebuilt"),
    BoundReached: ("warning", "a bound was reached: what is beyond it is left out, or done less well"),
    CutUnread: ("error", "entries cut that a group had not read"),
    HardCapNear: ("warning", "hard cap near: soon entries are cut that a group has not read"),
    GhostStream: ("warning", "no group reads this stream: its entries go unread"),
}
_STATES = {
    "started": ("info", "worker started"),
    "draining": ("info", "worker is draining"),
    "cut off": ("warning", "drain time is up: handlers were cut off"),
    "stopped": ("info", "worker stopped"),
}
_USUAL = frozenset({Acknowledged, Handled, Published})
_MAX_STREAMS = 10


@dataclass(slots=True)
class _Window:
    began: float
    lines: int = 0
    left_out: int = 0


class SignalLog:
    """Logs signals: at most `limit` lines a kind in `window` seconds; then how many were left out."""

    def __init__(self, *, limit: int = 10, window: Seconds = 10.0, clock: Clock | None = None) -> None:
        self._limit = limit
        self._window = window
        self._clock = clock or SystemClock()
        self._windows: dict[str, _Window] = {}
        self._failures = FailureLog(clock=self._clock)
        self._log = get_logger("hyperbus")

    def __call__(self, signal: Signal) -> None:
        """Log `signal`, if its kind is worth it and has not said too much lately."""
        if type(signal) in _USUAL and not self._windows:
            return  # these come with every batch
        if isinstance(signal, DeliveryFailed | LocalHandlerFailed):
            self._failures(signal)
            return
        now = self._clock.monotonic()
        if self._windows:
            self._end_windows(now)
        line = _line(signal)
        if line is None:
            return
        level, words = line
        kind = type(signal).__name__
        window = self._windows.setdefault(kind, _Window(now))
        if window.lines >= self._limit:
            window.left_out += 1
            return
        window.lines += 1
        getattr(self._log, level)(words, **_values(signal))

    def close(self) -> None:
        """Say what is still unsaid about lines left out."""
        self._failures.close()
        self._end_windows(float("inf"))

    def _end_windows(self, now: float) -> None:
        for kind, window in list(self._windows.items()):
            if now - window.began >= self._window:
                del self._windows[kind]
                if window.left_out:
                    self._log.warning("more of the same left out", signal=kind, count=window.left_out)


def _line(signal: Signal) -> tuple[str, str] | None:
    if isinstance(signal, ConnectionChanged):
        return ("info", "server found again") if signal.connected else ("warning", "server lost")
    if isinstance(signal, WorkerChanged):
        return _STATES[signal.state]
    if isinstance(signal, Recovered) and signal.handed_over:
        return "debug", "entries of another worker taken"
    if isinstance(signal, RefusalChanged):
        return ("warning", "refused, asking again") if signal.refused else ("info", "refused no longer")
    if isinstance(signal, GroupAbandoned):
        if signal.seconds_left:
            return "warning", "nobody serves this group: soon it holds its stream no longer"
        return "error", "nobody serves this group: it holds its stream no longer"
    return _LINES.get(type(signal))


def _values(signal: Signal) -> dict[str, Any]:
    if isinstance(signal, WorkerChanged):
        return {"consumer": signal.declared or signal.group, "group": signal.group, "worker": signal.consumer}
    values = asdict(signal)
    if isinstance(signal, Claimed):
        values["from_worker"] = values.pop("owner")
    if isinstance(signal, StreamsFound | StreamsAwaited):
        values["streams"] = list(signal.streams[:_MAX_STREAMS])
        values["count"] = len(signal.streams)
    if isinstance(signal, ConnectionChanged):
        del values["connected"], values["kind"]
    if isinstance(signal, Recovered):
        del values["handed_over"]
    if isinstance(signal, RefusalChanged):
        del values["refused"]
    return {name: value for name, value in values.items() if value != ""}
