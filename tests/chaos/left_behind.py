"""What a run left behind, as the checker reads it: publishes, calls of handlers, faults, rows, the server at the end.

In its folder: manifest.json (groups, limits, planned faults), published-*.jsonl (producers), effects-*.jsonl
(handlers), faults.jsonl, marks.jsonl (when all was done), samples.jsonl, *.db (rows), final.json (the server's end).
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Of two answers to one publish the heavier one holds.
_WEIGHT = {"refused": 0, "uncertain": 1, "stored": 2}


@dataclass
class Published:
    """One publish, as its producer saw it; with `once` it may have been answered several times, and counts as one."""

    id: str
    stream: str
    key: str
    seq: int
    poison: str
    called: float
    outcome: str = "uncertain"
    entry: str = ""
    ended: float = float("inf")
    producer: str = ""
    once: bool = False
    #: The entry ids that its answers named, when the last answer came, and how many there were of any kind.
    named: set[str] = field(default_factory=set)
    last: float = float("inf")
    answers: int = 0

    def answered(self, outcome: str, entry: str, when: float) -> None:
        """Take down an answer: what was stored once stays so, and what was uncertain is never surely refused."""
        self.answers += 1
        self.last = when
        if entry:
            self.named.add(entry)
        if self.answers == 1 or _WEIGHT[outcome] > _WEIGHT[self.outcome]:
            self.outcome, self.entry, self.ended = outcome, entry, when


@dataclass
class Call:
    """One call of a handler."""

    group: str
    id: str
    stream: str
    entry: str
    consumer: str
    pid: int
    begin: float
    end: float | None = None
    ok: bool = False


class Run:
    """Everything that a run left behind."""

    def __init__(self, folder: Path) -> None:
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        self.final: dict[str, Any] = json.loads((folder / "final.json").read_text())
        self.faults = list(_lines(folder, "faults.jsonl"))
        self.samples = list(_lines(folder, "samples.jsonl"))
        self.published = _published(folder, self.manifest["prefix"])
        self.calls = _calls(folder)
        self.rows = {group: _rows(folder / file, table) for group, (file, table) in self.manifest["rows"].items()}
        self.ends: dict[tuple[str, str], list[Call]] = defaultdict(list)
        self.calls_of: dict[tuple[str, str], list[Call]] = defaultdict(list)
        for call in self.calls:
            self.calls_of[call.group, call.id].append(call)
            if call.ok:
                self.ends[call.group, call.id].append(call)
        self.marks = list(_lines(folder, "marks.jsonl"))
        self.letters = _letters(self.final, self.marks, self.faults)

    @property
    def groups(self) -> list[str]:
        """Every group, those of rows too."""
        return [*self.manifest["groups"], *self.manifest["rows"]]

    def is_excused(self, event: Published) -> bool:
        """Tell whether the server was told to forget an event: it was published before such a command returned.

        Not when everything published up to a mark was done before that, and the event was.
        """
        forgotten = [
            fault
            for fault in self.faults
            if event.called < fault["end"]
            and (fault["kind"] == "flushall" or (fault["kind"] == "del" and fault["stream"] == event.stream))
        ]
        if not forgotten:
            return False
        first = min(fault["begin"] for fault in forgotten)
        place = f"{event.stream} {event.entry}"
        return not any(event.ended < mark["t"] < first and place not in mark["waiting"] for mark in self.marks)

    def was_flushed(self, event: Published) -> bool:
        """Tell whether the server was told to forget all between an event's first call and its last answer."""
        return any(
            fault["kind"] == "flushall" and fault["begin"] < event.last and event.called < fault["end"]
            for fault in self.faults
        )

    def expected(self) -> Iterator[Published]:
        """Return what has to have arrived."""
        return (one for one in self.published.values() if one.outcome == "stored" and not self.is_excused(one))


def _lines(folder: Path, pattern: str) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob(pattern)):
        with path.open() as lines:
            for line in lines:
                yield json.loads(line)


def _letters(final: dict[str, Any], marks: list[dict[str, Any]], faults: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all dead letters: those of the end, and those that were seen just before each FLUSHALL."""
    found = [
        {**letter, "group": group["name"], "stream": stream}
        for stream, about in final["streams"].items()
        for group in about["groups"]
        for letter in group["dead"]
    ]
    for fault in faults:
        before = [mark for mark in marks if mark["t"] < fault["begin"]]
        earlier = [one["end"] for one in faults if one["kind"] == "flushall" and one["end"] < fault["begin"]]
        if fault["kind"] == "flushall" and before and before[-1]["t"] > max(earlier, default=0.0):
            found += before[-1]["letters"]
    return found


def _published(folder: Path, prefix: str) -> dict[str, Published]:
    found: dict[str, Published] = {}
    for path in sorted(folder.glob("published-*.jsonl")):
        for line in _lines(folder, path.name):
            if line["e"] == "call":
                stream = f"{prefix}:{line['type']}"
                found[line["id"]] = Published(
                    line["id"], stream, line["key"], line["seq"], line["poison"], line["t"], producer=path.stem,
                    once=line.get("once", False),
                )  # fmt: skip
            else:
                found[line["id"]].answered(line["e"], line.get("entry", ""), line["t"])
    return found


def _calls(folder: Path) -> list[Call]:
    calls: list[Call] = []
    for path in sorted(folder.glob("effects-*.jsonl")):
        running: dict[int, Call] = {}
        for line in _lines(folder, path.name):
            key = line["call"]
            if line["e"] == "begin":
                running[key] = Call(
                    line["group"], line["id"], line["stream"], line["entry"], line["consumer"], line["pid"], line["t"]
                )
                calls.append(running[key])
            else:
                running[key].end, running[key].ok = line["t"], line["ok"]
    return calls


def _rows(path: Path, table: str) -> Counter[str]:
    if not path.exists():
        return Counter()
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return Counter(row[0] for row in connection.execute(f"SELECT event_id FROM {table}"))
    finally:
        connection.close()
