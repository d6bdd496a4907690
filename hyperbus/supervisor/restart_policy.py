"""When a process that died is started again, and when it is given up. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hyperbus.clock import Seconds

#: A process that lived this long did its work; what came before is forgotten.
HEALTHY: Seconds = 10.0
#: Deaths in a row of processes that were never ready, each before it was healthy, that make a crash loop. Entries that
#: kill their process are none, however many there are, one after another: each is found out after a few deaths.
MOST_DEATHS = 10
#: So many deaths in a row are followed by a pause of at most `short_pause`: the entries of a dead process wait.
_PATIENCE = 5
_FIRST_PAUSE: Seconds = 0.1
_SHORT_PAUSE: Seconds = 1.0
_LONGEST_PAUSE: Seconds = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How many deaths in a row are a crash loop, and how long the pauses between restarts become."""

    most_deaths: int = MOST_DEATHS
    short_pause: Seconds = _SHORT_PAUSE
    longest_pause: Seconds = _LONGEST_PAUSE


@dataclass(frozen=True, slots=True)
class RestartState:
    """What is remembered of one process's deaths. `in_a_row` counts blameless ones too: they slow restarts down."""

    policy: RestartPolicy
    deaths: int = 0
    in_a_row: int = 0

    def after_death(self, lived: Seconds, *, blameless: bool = False, server_at_fault: bool = False) -> RestartState:
        """Return the state after a death. A blameless one does not count for a crash loop.

        That is one of a process that was ready, or one with a server at fault. The latter does not lengthen the pause
        either: the next process waits for the server, and is to be there when it serves again.
        """
        healthy = lived >= HEALTHY
        in_a_row = 1 if healthy else self.in_a_row + 1
        if server_at_fault:
            return replace(self, in_a_row=min(in_a_row, max(_PATIENCE, self.in_a_row)))
        if blameless:
            return replace(self, in_a_row=in_a_row)
        return replace(self, deaths=1 if healthy else self.deaths + 1, in_a_row=in_a_row)

    @property
    def is_crash_loop(self) -> bool:
        """Whether starting it again is pointless."""
        return self.deaths >= self.policy.most_deaths

    @property
    def pause(self) -> Seconds:
        """How long to wait before it is started again."""
        if self.in_a_row <= _PATIENCE:
            return float(min(_FIRST_PAUSE * 2 ** max(0, self.in_a_row - 1), self.policy.short_pause))
        doublings = min(self.in_a_row - _PATIENCE, 10)  # a bound, so that a long outage makes no huge number
        return float(min(self.policy.short_pause * 2**doublings, self.policy.longest_pause))
