"""What happened to the deliveries of one consumer since it was last told, by event type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hyperbus.clock import Seconds
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

    def add(self, event_types: Sequence[str], seconds: Sequence[Seconds], latencies: Sequence[Seconds]) -> None:
        """Count deliveries that are acked, and what each took; those of a batch have no numbers here."""
        if len(set(event_types)) == 1:  # next to always, and much cheaper
            tally = self.of(event_types[0])
            tally.acked += len(event_types)
            tally.handler_seconds += seconds
            tally.latencies += latencies
            return
        for event_type in event_types:
            self.of(event_type).acked += 1
        for event_type, taken, latency in zip(event_types, seconds, latencies, strict=False):
            tally = self.of(event_type)
            tally.handler_seconds.append(taken)
            tally.latencies.append(latency)

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
