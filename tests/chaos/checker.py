"""Judges a run from what it left behind. A program of its own, which knows nothing of hyperbus' code.

python -m tests.chaos.checker FOLDER [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.chaos.left_behind import Call, Published, Run

#: Faults that may make a delivery go to a second worker while the first one still handles it.
_REDELIVERING = {"half_open", "group_destroy", "del", "flushall"}
#: The same, where they hit the first worker's own process.
_STOPPING = {"stop", "stop_rejecting"}
_REDELIVERING_OWN = {*_STOPPING, "supervisor_kill"}
#: How long after such a fault its consequences are still seen.
_AFTERMATH = 8.0
#: How long after a fault of the server every stream is worked on again. A busy machine takes some seconds.
SOON = 15.0
#: How long a handler that hangs, through all its tries, and who waits for it.
_HANGS = 75.0
_SHOWN = 5
#: How processes end that are ended by a handler, which was told to: with the exit code of a crash, or in good order.
_OUR_ENDS = ("exit code 99", "exit code 0")


@dataclass
class Verdict:
    """Whether one promise was kept: what was looked at, and what broke it."""

    promise: str
    looked_at: int
    broken: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Nothing broke it. Having looked at nothing is no proof, and is judged by `seen enough`."""
        return not self.broken


# -- the promises


def nothing_lost(run: Run) -> Verdict:
    """Every acknowledged publish has an effect in every group; poison has a dead letter instead."""
    verdict = Verdict("no acknowledged publish without an effect in every group", 0)
    dead = {(letter["group"], letter["stream"], letter["entry"]) for letter in run.letters}
    for event in run.expected():
        for group in run.groups:
            verdict.looked_at += 1
            if event.poison:
                arrived = (group, event.stream, event.entry) in dead
            elif group in run.rows:
                arrived = event.id in run.rows[group]
            else:
                arrived = (group, event.id) in run.ends
            if not arrived:
                what = f"poison ({event.poison}) without a dead letter" if event.poison else "without effect"
                verdict.broken.append(
                    f"{what} in {group}: {event.id} {event.stream} {event.entry} called {event.called:.3f}"
                )
    return verdict


def dead_letters(run: Run) -> Verdict:
    """Dead letters only for poison, and one a group for each."""
    verdict = Verdict("dead letters only for poison, one each", len(run.letters))
    by_entry = {(one.stream, one.entry): one for one in run.published.values() if one.entry}
    counts: Counter[tuple[str, str, str]] = Counter()
    for letter in run.letters:
        place = (
            f"{letter['stream']} {letter['entry']} in {letter['group']}: {letter['reason']} {letter['message'][:80]}"
        )
        event = by_entry.get((letter["stream"], letter["entry"])) or run.published.get(letter["id"])
        if event is None:
            verdict.broken.append(f"dead letter of an event that nobody published: {place}")
        elif not event.poison:
            verdict.broken.append(f"dead letter of an innocent event: {event.id} {place}")
        else:
            counts[letter["group"], letter["stream"], letter["entry"]] += 1
            if counts[letter["group"], letter["stream"], letter["entry"]] > 1 and not _replayed(run, letter, event):
                verdict.broken.append(f"two dead letters of one entry: {event.id} {place}")
    return verdict


def _replayed(run: Run, letter: dict[str, Any], event: Published) -> bool:
    """Tell whether the group was lost after an event was published, so that the event was delivered anew."""
    return any(
        fault["kind"] == "group_destroy"
        and fault["stream"] == letter["stream"]
        and fault["group"] == letter["group"]
        and fault["end"] > event.called
        for fault in run.faults
    )


def order(run: Run) -> Verdict:
    """In groups that ask for order, no event of a key begins before the one before it was done for the first time."""
    verdict = Verdict("order by key where asked", 0)
    keys: dict[tuple[str, str, str], list[Published]] = defaultdict(list)
    for event in run.expected():
        if not event.poison:
            keys[event.producer, event.key, event.stream].append(event)
    for group in run.manifest["ordered"]:
        begun: dict[str, float] = {}
        for call in run.calls:
            if call.group == group:
                begun[call.id] = min(call.begin, begun.get(call.id, call.begin))
        for events in keys.values():
            events.sort(key=lambda event: event.seq)
            for first, second in pairwise(events):
                done = min((c.end for c in run.ends[group, first.id] if c.end is not None), default=None)
                if done is None or second.id not in begun:
                    continue  # judged elsewhere
                verdict.looked_at += 1
                if begun[second.id] < done:
                    verdict.broken.append(
                        f"{group} {first.key}: {second.seq} began {done - begun[second.id]:.3f} s "
                        f"before {first.seq} was done ({first.entry}, {second.entry})"
                    )
    return verdict


def rows_once(run: Run) -> Verdict:
    """A row for each event, and no second one."""
    verdict = Verdict("database rows exactly once", 0)
    for group, rows in run.rows.items():
        verdict.looked_at += len(rows)
        for event_id, count in rows.items():
            event = run.published.get(event_id)
            if count != 1:
                verdict.broken.append(f"{count} rows of {event_id} in {group}")
            if event is None or event.poison or event.outcome == "refused":
                verdict.broken.append(f"a row that should not be there: {event_id} in {group}: {event}")
    return verdict


def nothing_pending(run: Run) -> Verdict:
    """At the end every group has read everything, and nothing is pending or parked."""
    verdict = Verdict("nothing pending at the end", 0)
    for stream, about in run.final["streams"].items():
        there = {group["name"]: group for group in about["groups"]}
        for name in run.groups:
            verdict.looked_at += 1
            group = there.get(name)
            if group is None or group["missing"]:
                if about["length"]:
                    verdict.broken.append(f"{stream} has no group {name}")
                continue
            for what in ("pending", "unread", "parked"):
                if group[what]:
                    verdict.broken.append(f"{group[what]} {what} in {name} of {stream} {group.get('details', '')}")
    return verdict


def no_phantoms(run: Run) -> Verdict:
    """What a publish said was not stored has no effect; what nobody published has none either."""
    verdict = Verdict("no effect of a publish that was refused", 0)
    seen = {call.id: call for call in run.calls}
    verdict.looked_at = sum(one.outcome == "refused" for one in run.published.values())
    for event_id, call in seen.items():
        event = run.published.get(event_id)
        if event is None:
            verdict.broken.append(f"effect of an event that nobody published: {event_id} in {call.group}")
        elif event.outcome == "refused":
            verdict.broken.append(f"effect of a refused publish: {event_id} in {call.group}, called {event.called:.3f}")
    return verdict


def stored_once(run: Run) -> Verdict:
    """An event lies in its stream once, unless it was published again by hand: handlers saw one entry of each."""
    verdict = Verdict("an event is stored once", 0)
    entries: dict[str, set[str]] = defaultdict(set)
    for call in run.calls:
        entries[call.id].add(call.entry)
    plain = {name: ids for name, ids in entries.items() if name not in run.published or not run.published[name].once}
    verdict.looked_at = len(plain)
    verdict.broken += [f"{event_id} is stored as {sorted(ids)}" for event_id, ids in plain.items() if len(ids) > 1]
    return verdict


def repeated_once(run: Run) -> Verdict:
    """A publish with `once` is one entry, which every answer names, unless all was forgotten while it was repeated."""
    verdict = Verdict("a publish with once is stored once, however often it is repeated", 0)
    seen: dict[str, set[str]] = defaultdict(set)
    for call in run.calls:
        seen[call.id].add(call.entry)
    for event in run.published.values():
        if event.once and not run.was_flushed(event):
            verdict.looked_at += 1
            entries = event.named | seen[event.id]
            if len(entries) > 1:
                verdict.broken.append(f"{event.id} of {event.stream} is stored as {sorted(entries)}")
    return verdict


def nothing_taken(run: Run) -> Verdict:
    """No worker is given what a live one is handling, however long that takes.

    A thread goes on when the time of its handler is over; its entry is to be tried again then, by whomever.
    """
    verdict = Verdict("nothing taken from a live worker", 0)
    by_entry: dict[tuple[str, str, str], list[Call]] = defaultdict(list)
    for call in run.calls:
        by_entry[call.group, call.stream, call.entry].append(call)
    for calls in by_entry.values():
        for first in calls:
            if first.end is None or first.end - first.begin < 2 * run.manifest["ttl"]:
                continue
            verdict.looked_at += 1
            for second in calls:
                over = min(first.end, first.begin + run.manifest.get("thread_limits", {}).get(first.group, math.inf))
                if second.consumer != first.consumer and first.begin < second.begin < over:
                    if _may_be_taken(run, first, second.begin) or _is_back_from_the_dead(run, first, second):
                        continue
                    verdict.broken.append(
                        f"{first.entry} of {first.stream} in {first.group}: {first.consumer} handled it for "
                        f"{first.end - first.begin:.1f} s, {second.consumer} began "
                        f"{second.begin - first.begin:.1f} s after it"
                    )
    return verdict


def _may_be_taken(run: Run, first: Call, when: float) -> bool:
    for fault in run.faults:
        overlaps = fault["begin"] < when and fault["end"] + _AFTERMATH > first.begin
        if overlaps and fault["kind"] in _REDELIVERING:
            return True
        if overlaps and fault["kind"] in _REDELIVERING_OWN and first.pid in fault.get("pids", []):
            return True
    return False


def _is_back_from_the_dead(run: Run, first: Call, second: Call) -> bool:
    """Tell whether the second worker had the entry, was stopped and lost it, and has not noticed that yet."""
    return any(
        fault["kind"] in _STOPPING
        and second.pid in fault["pids"]
        and fault["begin"] < first.begin
        and fault["begin"] < second.begin < fault["end"] + run.manifest["ttl"]
        for fault in run.faults
    )


def done_once_by_the_living(run: Run) -> Verdict:
    """Acks that are refused for a while are asked for again: nobody who lived does again what was done meanwhile.

    Unless a handler hangs just then: a batch that it takes with it is done again.
    """
    verdict = Verdict("nothing done again for a refused ack", 0)
    for fault in run.faults:
        hangs = (one["end"] for one in run.faults if one["kind"] == "poison_hang")
        if fault["kind"] != "acks_refused" or any(fault["begin"] - _HANGS < end < fault["end"] for end in hangs):
            continue
        for (group, event_id), ends in run.ends.items():
            first = next((c for c in ends if c.end is not None and fault["begin"] < c.end < fault["end"]), None)
            if first is None:
                continue
            verdict.looked_at += 1
            again = [call for call in run.calls_of[group, event_id] if call.begin > first.end and call.pid == first.pid]
            if again and not _may_be_taken(run, first, again[0].begin):
                verdict.broken.append(
                    f"{event_id} in {group} was done and begun again {again[0].begin - first.end:.1f} s later"
                )
    return verdict


def back_soon(run: Run) -> Verdict:
    """Once a server serves again, every stream is worked on again: nobody sulks.

    Unless a handler that hangs is about: others may have to wait until it was given up.
    """
    verdict = Verdict("every stream worked on again soon after the server is back", 0)
    hanging = [fault["end"] for fault in run.faults if fault["kind"] == "poison_hang"]
    for fault in run.faults:
        if fault["kind"] != "back" or any(fault["begin"] - _HANGS < end < fault["end"] for end in hanging):
            continue
        verdict.looked_at += 1
        if fault["seconds"] is None or fault["seconds"] > SOON:
            verdict.broken.append(f"{fault['of']}: not within {SOON:g} s but after {fault['seconds']}")
    return verdict


def memory(run: Run) -> Verdict:
    """Workers and the server each stay under the figure that was printed at the start."""
    limits = run.manifest["limits"]
    verdict = Verdict("memory under the figures of the start", len(run.samples))
    worst_rss = max((rss for sample in run.samples for rss in sample["rss"].values()), default=0)
    worst_used = max((sample["used"] or 0 for sample in run.samples), default=0)
    for what, worst, limit in (("worker RSS", worst_rss, limits["rss"]), ("used_memory", worst_used, limits["used"])):
        if worst > limit:
            verdict.broken.append(f"{what} reached {worst / 1e6:.0f} MB, over {limit / 1e6:.0f} MB")
    return verdict


def processes(run: Run) -> Verdict:
    """Supervisors end only when told to, workers never of an error of their own, nor after their supervisors."""
    verdict = Verdict("supervisors end when told to, their workers with them", 0)
    for fault in run.faults:
        verdict.looked_at += fault["kind"] == "supervisor_kill"
        if fault["kind"] == "supervisor_ended":
            verdict.broken.append(f"a supervisor ended by itself: exit code {fault['code']}: {fault['said']}")
        if fault.get("left"):
            verdict.broken.append(f"{fault['left']} outlived their supervisor")
    for reason in run.manifest.get("deaths", []):
        if reason.startswith("exit code") and reason not in _OUR_ENDS:
            verdict.broken.append(f"a worker process died of an error of its own: {reason}")
    for code in run.manifest["exit_codes"]:
        if code != 0:
            verdict.broken.append(f"a supervisor or producer that was told to stop ended with {code}")
    return verdict


def seen_enough(run: Run) -> Verdict:
    """A run that saw nothing proves nothing."""
    verdict = Verdict("seen enough", len(run.calls))
    counts = Counter(fault["kind"] for fault in run.faults)
    for kind, least in run.manifest["faults"].items():
        if counts[kind] < least:
            verdict.broken.append(f"{kind} happened {counts[kind]} times, of {least}")
    stored = sum(1 for _ in run.expected())
    if stored < run.manifest["least_events"]:
        verdict.broken.append(f"only {stored} events were to be looked at, of {run.manifest['least_events']}")
    repeated = sum(one.once and one.answers > 1 for one in run.published.values())
    if repeated < run.manifest.get("least_repeated", 0):
        verdict.broken.append(f"only {repeated} publishes with once were repeated")
    groups = Counter(call.group for call in run.calls if call.ok)
    verdict.broken += [f"group {group} handled nothing" for group in run.manifest["groups"] if not groups[group]]
    return verdict


PROMISES = (
    nothing_lost, dead_letters, order, rows_once, nothing_pending, no_phantoms, stored_once, repeated_once,
    nothing_taken, done_once_by_the_living, back_soon, memory, processes, seen_enough,
)  # fmt: skip


# -- the report


def figures(run: Run) -> dict[str, Any]:
    """Return what is counted and not judged."""
    published = Counter(one.outcome for one in run.published.values())
    calls: Counter[str] = Counter()
    for (group, _), ends in run.ends.items():
        calls[group] += len(ends) - 1
    return {
        "published": dict(published),
        "once": sum(one.once for one in run.published.values()),
        "once, repeated": sum(one.once and one.answers > 1 for one in run.published.values()),
        "excused": sum(one.outcome == "stored" and run.is_excused(one) for one in run.published.values()),
        "marks": len(run.marks),
        "poison": dict(Counter(one.poison for one in run.published.values() if one.poison)),
        "calls": len(run.calls),
        "done": {group: sum(1 for g, _ in run.ends if g == group) for group in run.manifest["groups"]},
        "done again": dict(calls),
        "dead letters": len(run.letters),
        "faults": dict(Counter(fault["kind"] for fault in run.faults)),
        "worst worker RSS, MB": round(max((r for s in run.samples for r in s["rss"].values()), default=0) / 1e6),
        "worst used_memory, MB": round(max((s["used"] or 0 for s in run.samples), default=0) / 1e6),
    }


def check(folder: Path) -> tuple[list[Verdict], dict[str, Any]]:
    """Judge a run; return the verdict on each promise, and the figures."""
    run = Run(folder)
    return [promise(run) for promise in PROMISES], figures(run)


def main() -> int:
    """Judge, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="Judge a chaos run from what it left behind.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    options = parser.parse_args()
    verdicts, counted = check(options.folder)
    if options.json:
        told = [
            {"promise": v.promise, "holds": v.holds, "looked_at": v.looked_at, "broken": v.broken} for v in verdicts
        ]
        print(json.dumps({"verdicts": told, "figures": counted}, indent=1))
    else:
        for name, value in counted.items():
            print(f"  {name}: {value}")
        for verdict in verdicts:
            print(f"{'kept  ' if verdict.holds else 'BROKEN'} {verdict.promise} ({verdict.looked_at} looked at)")
            for line in verdict.broken[:_SHOWN]:
                print(f"       {line}")
            if len(verdict.broken) > _SHOWN:
                print(f"       and {len(verdict.broken) - _SHOWN} more")
    return 0 if all(verdict.holds for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
