"""When a worker process has had enough: replaced with a drain, or killed. Pure: what was seen in, a verdict out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from hyperbus.clock import Seconds
from hyperbus.settings import Settings

#: A process this many times over `max_rss` is killed: it grows faster than it could be replaced.
FATAL = 1.5
#: A process is not replaced for a limit before it lived this long: one that starts beyond it would be, for ever.
LEAST_LIFE: Seconds = 5.0
#: A process that was last heard of this long ago is late, not blocked.
SLACK: Seconds = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What is known of a process. `oldest_running` is as of its last report, `silent` the time since then."""

    lived: Seconds
    silent: Seconds
    ready: bool
    rss: int
    deliveries: int
    oldest_running: Seconds | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a process: replace it, or kill it at once. `reason` is for the log."""

    do: Literal["replace", "kill"]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a process may have, do and take. None is no limit."""

    max_rss: int | None
    max_deliveries: int | None
    max_handler_seconds: Seconds | None
    hung_after: Seconds
    least_life: Seconds = LEAST_LIFE

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the limits that settings set."""
        return cls(
            max_rss=settings.max_rss,
            max_deliveries=settings.max_deliveries,
            max_handler_seconds=settings.max_handler_seconds,
            hung_after=settings.hung_after,
        )

    def judge(self, seen: Vitals) -> Verdict | None:
        """Return what to do with a process, if anything."""
        return self._kill(seen) or self._replace(seen)

    def is_hung(self, seen: Vitals) -> bool:
        """Tell whether a process was not heard of for too long. It may be a handler that blocks: nobody is killed."""
        return seen.silent > self.hung_after

    def _kill(self, seen: Vitals) -> Verdict | None:
        if self.max_rss is not None and seen.rss > FATAL * self.max_rss:
            return Verdict("kill", f"it holds {_mb(seen.rss)}, over {FATAL:g} times max_rss={_mb(self.max_rss)}")
        longest = self.max_handler_seconds
        if longest is None or not seen.ready:  # importing modules may take long, and blocks
            return None
        if seen.oldest_running is not None and seen.oldest_running > longest:
            return Verdict("kill", f"a handler runs for {seen.oldest_running:.1f} s, max_handler_seconds={longest:g}")
        if seen.silent > longest + SLACK:
            return Verdict(
                "kill", f"its event loop is blocked for {seen.silent:.1f} s, max_handler_seconds={longest:g}"
            )
        return None

    def _replace(self, seen: Vitals) -> Verdict | None:
        if seen.lived < self.least_life:
            return None
        if self.max_rss is not None and seen.rss > self.max_rss:
            return Verdict("replace", f"it holds {_mb(seen.rss)}, max_rss={_mb(self.max_rss)}")
        if self.max_deliveries is not None and seen.deliveries >= self.max_deliveries:
            return Verdict("replace", f"it had {seen.deliveries} deliveries, max_deliveries={self.max_deliveries}")
        return None


def _mb(size: int) -> str:
    return f"{size / 2**20:.0f} MB"
