"""When a process that died is started again, and when it is given up. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hyperbus.clock import Seconds

#: A process that lived this long did its work; what came before is forgotten.
HEALTHY: Seconds = 10.0
#: Deaths in a row, each before it was healthy, that make a crash loop.
MOST_DEATHS = 6
_FIRST_PAUSE: Seconds = 0.1
_LONGEST_PAUSE: Seconds = 5.0


@dataclass(frozen=True, slots=True)
class RestartState:
    """What is remembered of one process's deaths."""

    deaths: int = 0

    def after_death(self, lived: Seconds, *, blameless: bool = False) -> RestartState:
        """Return the state after a death. A blameless one (the server was away) is not counted."""
        if blameless:
            return self
        return replace(self, deaths=1 if lived >= HEALTHY else self.deaths + 1)

    @property
    def is_crash_loop(self) -> bool:
        """Whether starting it again is pointless."""
        return self.deaths >= MOST_DEATHS

    @property
    def pause(self) -> Seconds:
        """How long to wait before it is started again."""
        return float(min(_FIRST_PAUSE * 2 ** max(0, self.deaths - 1), _LONGEST_PAUSE))
