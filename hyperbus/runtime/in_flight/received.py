"""An entry in this worker's hands, and the ways in which it can get there again. Its tries are counted here only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from hyperbus.runtime.coordination.era import Era
from hyperbus.transport import Parked

#: What a field takes beside its bytes.
_FIELD = 40


class Received(msgspec.Struct, gc=False, eq=False):
    """An entry in this worker's hands.

    Nobody sets `tries`, `alone`, `suspect` and `unbegun` but the methods below, each of which is one thing that
    can happen to it.

    Attributes:
        stream: the stream's key.
        event_type: the type that the stream holds.
        id: the entry's id.
        fields: the entry's fields as they were read; flat.
        size: what it counts for, in bytes: its body, or all of its fields where it has more than hyperbus writes.
        first_time: when the group was first handed it, as far as this worker knows; seconds since the epoch.
        era: the era of the server in which it came in; see `coordination/era.py`.
        tries: how often a handler was begun with it, the next time included, as far as anybody knows: of a worker that
            died nobody does.
        deaths: how often it was claimed from a worker that had died; no tries.
        excused: how many of these deaths were while it waited for a try that nobody had begun, as far as known here.
        given: another worker has it now.
        unbegun: the server may know that nobody has begun it since it was claimed, which is to end before it begins.
        alone: it may be what makes a batch fail, so it is handed over without neighbours.
        suspect: it may be what killed a process, so it is handed over while nothing else runs.
        parked: it is held by the group's parked entries, and not pending.
    """

    stream: str
    event_type: str
    id: bytes
    fields: list[bytes]
    size: int
    first_time: float
    era: int = 0
    tries: int = 1
    alone: bool = False
    suspect: bool = False
    parked: bool = False
    deaths: int = 0
    excused: int = 0
    given: bool = False
    unbegun: bool = False

    @property
    def delivery_count(self) -> int:
        """What the server counts: tries and deaths."""
        return self.tries + self.deaths

    @property
    def handed(self) -> int:
        """How often somebody may have begun it, the next time included."""
        return self.tries + self.deaths - self.excused

    # -- how it came here again

    def claimed(self, delivery_count: int, *, innocent: int, deaths: int = 0) -> None:
        """Note that it was claimed from a dead worker.

        Args:
            delivery_count: how often it was delivered, the claim included.
            innocent: deliveries up to which it is no suspect.
            deaths: how many of these deliveries were claims from workers that had died.
        """
        self.tries, self.deaths = max(1, delivery_count - deaths), deaths
        self.alone = self.suspect = delivery_count > innocent

    def recovered(self, delivery_count: int, *, deaths: int = 0) -> None:
        """Note that it was found pending with this worker, which did not know of it."""
        self.tries, self.deaths = max(1, delivery_count - deaths), deaths
        self.alone = self.unbegun = delivery_count > 1

    def resumed(self, *, claimed: bool) -> None:
        """Note that it has a schedule: it waited for a try that nobody has begun, and killed nobody.

        `claimed`: the claim has raised its tries, which is undone; where deaths are counted it has not.
        """
        self.tries, self.excused = max(2, self.tries - claimed), min(1, self.deaths)
        self.alone, self.suspect = True, False

    # -- what happened to it here

    def retried(self) -> None:
        """Note that a try of it failed and that there is to be another."""
        self.tries += 1
        self.alone = True

    def handed_over(self) -> None:
        """Note that another worker has it now."""
        self.given = True

    def suspected(self) -> None:
        """Note that somebody may have died of it."""
        self.suspect = True

    def kept_unbegun(self) -> None:
        """Note that it is no suspect, and will be none for as long as nobody begins it."""
        self.unbegun, self.suspect = True, False

    def begins(self) -> None:
        """Note that it may be what a process dies of from now on."""
        self.unbegun = False

    def cleared(self) -> None:
        """Note that it need not wait for the process to itself any more."""
        self.suspect = False


def receive(stream: str, event_type: str, entries: Iterable[Sequence[Any]], now: float, era: int = 0) -> list[Received]:
    """Return what a first delivery of entries, each an `Entry` or a pair of a page, puts into this worker's hands."""
    return [
        Received(
            stream, event_type, entry_id, fields,
            len(fields[1]) if len(fields) == 2 else _weigh(fields), now, era,  # noqa: PLR2004 - one field
        )
        for entry_id, fields in entries
    ]  # fmt: skip


def _weigh(fields: Sequence[bytes]) -> int:
    """Return what fields take in bytes, each with what Python adds to it."""
    return sum(map(len, fields)) + _FIELD * len(fields)


def take_from_parked(stream: str, event_type: str, entries: Iterable[Parked], era: int = 0) -> list[Received]:
    """Return parked entries whose time has come, as they are put into this worker's hands."""
    return [
        Received(
            stream, event_type, entry.entry_id, entry.fields, _weigh(entry.fields),
            entry.first_time, era, tries=entry.tries + 1, alone=True, parked=True,
        )
        for entry in entries
    ]  # fmt: skip


def by_stream(received: Iterable[Received]) -> dict[str, list[Received]]:
    """Return entries by the stream that they are of, in their order."""
    found: dict[str, list[Received]] = {}
    for item in received:
        found.setdefault(item.stream, []).append(item)
    return found


def ids_by_stream(received: Sequence[Received]) -> dict[str, list[bytes]]:
    """Return the ids of entries by the stream that they are of. Quick where that is one stream, as it often is."""
    streams = {item.stream for item in received}
    if len(streams) == 1:
        return {received[0].stream: [item.id for item in received]}
    ids: dict[str, list[bytes]] = {stream: [] for stream in streams}
    for item in received:
        ids[item.stream].append(item.id)
    return ids


def owned(received: Sequence[Received], era: Era) -> Sequence[Received]:
    """Return those entries that are this worker's still; the others have ended, and are forgotten."""
    if not era.has_disowned:
        return received
    kept: list[Received] = []
    for item in received:
        if era.disowns(item.stream, item.id, item.era):
            era.forget(item.stream, item.id)
        else:
            kept.append(item)
    return kept
