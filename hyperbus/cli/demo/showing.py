"""How the demo looks: a live table on a terminal, plain lines elsewhere, and the summary at the end."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from hyperbus.cli.demo.watching import Groups, Seen, quantile
from hyperbus.clock import Seconds
from hyperbus.observability.logs import wants_colours

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

#: Seconds between two looks, on a terminal and elsewhere.
LIVE_INTERVAL: Seconds = 0.5
LINE_INTERVAL: Seconds = 2.0


@dataclass(frozen=True, slots=True)
class Glance:
    """The demo at one moment."""

    elapsed: Seconds
    published: int
    received: int
    publish_rate: float
    handled_rates: dict[str, float]
    seen: Seen
    groups: Groups


@dataclass(frozen=True, slots=True)
class Summary:
    """Both ends, counted."""

    seconds: Seconds
    published: int
    rows: int
    counted: int
    received: int
    lost: int
    pending: int
    dead_letters: int
    retries: int
    uncertain: int
    p50: Seconds | None
    p99: Seconds | None

    @property
    def agrees(self) -> bool:
        """Whether every published event arrived at every end, and nothing is left over."""
        ends = {self.published, self.rows, self.counted, self.received}
        return len(ends) == 1 and not (self.lost or self.pending or self.dead_letters or self.uncertain)

    def as_dict(self) -> dict[str, object]:
        """Return it for machines; durations in seconds."""
        return {**asdict(self), "rate": round(self.published / self.seconds, 1), "agrees": self.agrees}

    def lines(self) -> list[str]:
        """Return it for people."""
        rows: list[tuple[str, str]] = [
            ("published", f"{self.published:,}  ({self.published / self.seconds:,.0f} events/s)"),
            ("rows in the database", f"{self.rows:,}"),
            ("counted by metrics", f"{self.counted:,}"),
            ("received by the socket", f"{self.received:,}"),
            ("lost", f"{self.lost:,}"),
            ("pending", f"{self.pending:,}"),
            ("dead letters", f"{self.dead_letters:,}"),
            ("retried (the stumbling reviewer)", f"{self.retries:,}"),
            ("publish to handled, p50", _milliseconds(self.p50)),
            ("publish to handled, p99", _milliseconds(self.p99)),
        ]
        verdict = "Both ends agree: nothing lost." if self.agrees else "The ends do NOT agree."
        return ["", *(f"  {name:<34}{value}" for name, value in rows), "", verdict]


class Screen:
    """Shows glances as they come."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._live: Live | None = None
        self._console = _console()

    @property
    def interval(self) -> Seconds:
        """How often it wants to be shown something."""
        return LIVE_INTERVAL if self._is_live else LINE_INTERVAL

    @property
    def _is_live(self) -> bool:
        return not self._quiet and self._console.is_terminal and wants_colours(os.environ)

    def say(self, line: str) -> None:
        """Show a line."""
        if not self._quiet:
            print(line, flush=True)

    def show(self, glance: Glance) -> None:
        """Show the demo at this moment."""
        if self._quiet:
            return
        if not self._is_live:
            print(_line(glance), flush=True)
            return
        if self._live is None:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(_table(glance), refresh=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _console() -> Console:
    from rich.console import Console

    return Console(file=sys.stdout)


def _line(glance: Glance) -> str:
    lag = sum(glance.groups.lag.values())
    pending = sum(glance.groups.pending.values())
    return (
        f"{glance.elapsed:5.0f} s  published {glance.published:,} ({glance.publish_rate:,.0f}/s)  "
        f"socket {glance.received:,}  lag {lag:,}  pending {pending:,}"
    )


def _table(glance: Glance) -> Table:
    from rich.table import Table

    table = Table(
        title=f"{glance.elapsed:.0f} s · published {glance.published:,} ({glance.publish_rate:,.0f}/s) "
        f"· socket {glance.received:,} · dead letters {glance.groups.dead_letters:,}",
        title_justify="left",
    )
    table.add_column("group")
    for heading in ("events/s", "handled", "lag", "pending", "p50", "p99"):
        table.add_column(heading, justify="right")
    for group in sorted(glance.seen.handled):
        buckets = glance.seen.latency.get(group, {})
        table.add_row(
            group,
            f"{glance.handled_rates.get(group, 0):,.0f}",
            f"{glance.seen.handled[group]:,}",
            f"{glance.groups.lag.get(group, 0):,}",
            f"{glance.groups.pending.get(group, 0):,}",
            _milliseconds(quantile(buckets, 0.5)),
            _milliseconds(quantile(buckets, 0.99)),
        )
    return table


def _milliseconds(seconds: Seconds | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"
