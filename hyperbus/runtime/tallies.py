"""What happened to the deliveries of one consumer since it was last told, by event type."""

from __future__ import annotations

from dataclasses import dataclass, field

from hyperbus.signals import Announcer, Handled


@dataclass(slots=True)
class Tally:
    """The counts of one event type; see `signals.Handled`."""

    acked: int = 0
    retried: int = 0
    dead_lettered: int = 0
    handler_seconds: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


class Tallies:
    """Counts without telling, until it is asked to."""

    def __init__(self, announcer: Announcer, group: str) -> None:
        self._announcer = announcer
        self._group = group
        self._tallies: dict[str, Tally] = {}

    def of(self, event_type: str) -> Tally:
        """Return the counts of a type, to be added to."""
        tally = self._tallies.get(event_type)
        if tally is None:
            tally = self._tallies[event_type] = Tally()
        return tally

    def announce(self) -> None:
        """Announce every count, and begin anew."""
        tallies, self._tallies = self._tallies, {}
        for event_type, tally in tallies.items():
            self._announcer.announce(
                Handled(
                    self._group,
                    event_type,
                    tally.acked,
                    tally.retried,
                    tally.dead_lettered,
                    tally.handler_seconds,
                    tally.latencies,
                )
            )
