"""What happened to the deliveries of one consumer since it was last told."""

from __future__ import annotations

from collections import Counter

from hyperbus.clock import Seconds
from hyperbus.signals import Announcer, Handled


class DeliveryStats:
    """Counts without telling, until it is asked to.

    Attributes:
        acked, retried, dead_lettered: deliveries by event type.
        seconds: how long each call of the handler took.
        latencies: how old each event was when it was done.
    """

    def __init__(self, announcer: Announcer, group: str) -> None:
        self.acked: Counter[str] = Counter()
        self.retried: Counter[str] = Counter()
        self.dead_lettered: Counter[str] = Counter()
        # Who adds to these keeps a hold of them: they are emptied, and never exchanged.
        self.seconds: list[Seconds] = []
        self.latencies: list[Seconds] = []
        self._announcer = announcer
        self._group = group

    def announce(self) -> None:
        """Announce every count, and begin anew."""
        counts = dict(self.acked), dict(self.retried), dict(self.dead_lettered)
        if any(counts):
            self._announcer.announce(Handled(self._group, *counts, self.seconds.copy(), self.latencies.copy()))
        for kept in (self.acked, self.retried, self.dead_lettered, self.seconds, self.latencies):
            kept.clear()
