"""A made-up run, for tests of the checker: files as a run leaves them behind."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from tests.chaos import checker

STREAM = "events:chaos.alpha"


class Story:
    """A run that never was. As it is made, everything in it went well."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = {
            "prefix": "events", "ttl": 1.5, "groups": ["plain", "ordered"], "rows": {"rows": ("events.db", "workflow_updates")},
            "ordered": ["ordered"],
            "limits": {"rss": 100, "used": 1000}, "faults": {}, "least_events": 1, "exit_codes": [0, 0],
        }  # fmt: skip
        self.published: list[dict[str, Any]] = []
        self.effects: list[dict[str, Any]] = []
        self.faults: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = [{"t": 1.0, "rss": {"1": 50}, "used": 500}]
        self.marks: list[dict[str, Any]] = []
        self.rows: list[str] = []
        self.groups: dict[str, dict[str, Any]] = {
            name: {"name": name, "missing": False, "pending": 0, "unread": 0, "parked": 0, "dead": []}
            for name in ("plain", "ordered", "rows")
        }

    def publish(
        self, event_id: str, seq: int = 0, *, at: float = 10.0, poison: str = "", outcome: str = "stored",
        once: bool = False,
    ) -> None:  # fmt: skip
        call = {"e": "call", "t": at, "id": event_id, "type": "chaos.alpha", "key": "k", "seq": seq, "poison": poison,
                "once": once}  # fmt: skip
        self.published.append(call)
        if outcome != "silence":
            self.answer(event_id, seq, at=at + 0.1, outcome=outcome)

    def answer(self, event_id: str, seq: int = 0, *, at: float, outcome: str = "stored") -> None:
        entry = {"entry": f"{seq}-1"} if outcome == "stored" else {}
        self.published.append({"e": outcome, "t": at, "id": event_id, **entry})

    def handle(
        self, event_id: str, seq: int = 0, *, at: float = 11.0, took: float = 0.1, group: str = "plain", worker: int = 1,
        ok: bool = True,
    ) -> None:  # fmt: skip
        common = {
            "group": group, "id": event_id, "stream": STREAM, "entry": f"{seq}-1", "consumer": f"worker-{worker}",
            "pid": worker, "tries": 1, "call": len(self.effects),
        }  # fmt: skip
        self.effects += [{"e": "begin", "t": at, **common}, {"e": "end", "t": at + took, "ok": ok, **common}]

    def event(self, event_id: str, seq: int = 0, *, at: float = 10.0) -> None:
        """An event that is published, handled by every group, and written."""
        self.publish(event_id, seq, at=at)
        self.handle(event_id, seq, at=at + 1)
        self.handle(event_id, seq, at=at + 1, group="ordered")
        self.rows.append(event_id)

    def fault(self, kind: str, begin: float, end: float, **more: Any) -> None:
        self.faults.append({"kind": kind, "begin": begin, "end": end, **more})

    def bury(self, event_id: str, seq: int = 0, *groups: str) -> None:
        for group in groups or self.groups:
            letter = {"id": event_id, "entry": f"{seq}-1", "reason": "exhausted", "message": "x"}
            self.groups[group]["dead"].append(letter)

    def write(self) -> None:
        files = {
            "published-p": self.published, "effects-1": self.effects, "faults": self.faults, "marks": self.marks,
            "samples": self.samples,
        }  # fmt: skip
        for name, lines in files.items():
            (self.folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (self.folder / "manifest.json").write_text(json.dumps(self.manifest))
        final = {"streams": {STREAM: {"length": 1, "groups": list(self.groups.values())}}}
        (self.folder / "final.json").write_text(json.dumps(final))
        connection = sqlite3.connect(self.folder / "events.db")
        connection.execute("CREATE TABLE workflow_updates (event_id TEXT)")
        connection.executemany("INSERT INTO workflow_updates VALUES (?)", [(row,) for row in self.rows])
        connection.commit()
        connection.close()

    def broken(self) -> dict[str, list[str]]:
        """Return what the checker finds broken, by promise."""
        self.write()
        verdicts, _ = checker.check(self.folder)
        return {verdict.promise: verdict.broken for verdict in verdicts if not verdict.holds}
