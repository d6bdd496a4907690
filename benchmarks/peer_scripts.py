"""Other libraries, asked the same in the same rounds: scripts for a Python environment of their own.

A script is called with a task, and prints a line of JSON at its end. What they do is theirs (`benchmarks/peers`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.form import Depth
from benchmarks.question import Figure, Loop, Place, Question, Values

FOLDER = Path(__file__).parent / "peers"
#: The peer that some bars are about; it takes part in every form. The others only where everything is measured.
ALWAYS = "faststream"
#: What the tasks are called in the table, and how many events they get when nothing is known of a peer's speed.
TASKS = {
    "publish_one": ("publish, one by one", 3_000),
    "publish_tasks": ("publish, 256 tasks", 3_000),
    "publish_batch": ("publish, batches", 10_000),
    "consume_one": ("consume, one handler an event", 2_000),
    "consume_64": ("consume, 64 at once", 2_000),
    "consume_batch": ("consume, batches", 10_000),
}
#: The tasks that bars are about.
_WITH_BARS = ("publish_one", "publish_tasks", "consume_one", "consume_batch")
#: How long a task should take, in seconds, and how long it may take.
_SECONDS = 1.0
_TIMEOUT = 120.0


@dataclass(slots=True)
class Peer:
    """One script.

    Attributes:
        title: name and version, once it has run.
        rates: events a second by task, as it was last.
    """

    python: str
    script: Path
    title: str
    rates: dict[str, float]

    @property
    def name(self) -> str:
        """What figures of it begin with."""
        return self.script.stem

    def tasks(self) -> list[str]:
        """Return the tasks that it supports; none where it cannot run."""
        ended = self._run("--list")
        if ended.returncode:
            print(f"without {self.name}: {_last_line(ended.stderr)}", file=sys.stderr)
            return []
        supported = json.loads(_last_line(ended.stdout))
        return [task for task in TASKS if task in supported]

    def ask(self, task: str, place: Place) -> tuple[Values, Loop]:
        """Run one task; how many events it gets depends on how fast it was before.

        Raises:
            SystemExit: it failed.
        """
        known = self.rates.get(task)
        count = place.events(TASKS[task][1] if known is None else round(known * _SECONDS))
        ended = self._run(task, "--url", place.url, "--count", str(count))
        if ended.returncode:
            raise SystemExit(f"{self.name} {task} failed: {_last_line(ended.stderr)}")
        answer = json.loads(_last_line(ended.stdout))
        self.title = f"{answer['peer']} {answer['version']}"
        self.rates[task] = answer["count"] / answer["seconds"]
        return {f"{self.name}.{task}": self.rates[task]}, answer.get("loop", "-")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, str(self.script), *arguments], capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )


def find_peers(python: str, *, everyone: bool, folder: Path = FOLDER) -> list[Peer]:
    """Return the peers that there are scripts for."""
    scripts = sorted(folder.glob("[!_]*.py" if everyone else f"{ALWAYS}.py"))
    return [Peer(python, script, script.stem, {}) for script in scripts]


def question_of(peer: Peer, task: str) -> Question:
    """Return what asks a peer for a task. Its title is complete once it was asked."""
    return Question(
        f"{peer.name}.{task}",
        lambda _place: {},  # a peer is asked in its own Python
        (Figure(f"{peer.name}.{task}", f"{peer.title}: {TASKS[task][0]}"),),
        Depth.QUICK if peer.name == ALWAYS and task in _WITH_BARS else Depth.DEFAULT,
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
