"""The `hyperbus` command as a process of its own, as a user starts it; and what it prints."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

ROOT = Path(__file__).parents[1]
#: How long anything here may take, in seconds.
DEADLINE = 90.0
_T = TypeVar("_T")


class Ended(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> list[str]:
        """The lines on stderr that are for people: all but JSON log lines."""
        return [line for line in self.err.splitlines() if not _is_log_line(line)]


#: Has coverage leave a command alone: where it measures, it takes SIGTERM, in forked children too, and writes files.
UNCOVERED = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}


def environment(**variables: str) -> dict[str, str]:
    """Return an environment in which hyperbus has no settings but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HYPERBUS_", "COV_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **variables}


def command(*arguments: str) -> list[str]:
    """Return the words that start hyperbus."""
    return [sys.executable, "-m", "hyperbus", *arguments]


def hyperbus(*arguments: str, folder: Path, variables: Mapping[str, str] | None = None, given: str = "") -> Ended:
    """Run a command to its end."""
    ended = subprocess.run(
        command(*arguments), cwd=folder, env=environment(**(variables or {})), input=given,
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    return Ended(ended.returncode, ended.stdout, ended.stderr)


class Running:
    """A command that goes on: `hyperbus run ...`. Leaving the context kills what is left of it."""

    def __init__(self, *arguments: str, folder: Path, variables: Mapping[str, str] | None = None) -> None:
        self._err_path = folder / f"stderr-{time.monotonic_ns()}"
        with self._err_path.open("w") as err:
            self.process = subprocess.Popen(
                command(*arguments), cwd=folder, env=environment(**(variables or {})), stdout=err, stderr=err,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()  # the worker processes end themselves when their supervisor is gone
        self.process.wait()

    @property
    def err(self) -> str:
        """What it has said so far."""
        return self._err_path.read_text()

    def log(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        lines = [json.loads(line) for line in self.err.splitlines() if _is_log_line(line)]
        return [line for line in lines if line["event"] == event]

    def wait_until_ready(self) -> dict[str, Any]:
        """Wait until every worker process is ready; return the line that says where it listens."""
        wait_for(self.is_ready, self._why)
        (line,) = self.log("supervising")
        return line

    def is_ready(self) -> bool:
        """Tell whether every worker process is ready."""
        lines = self.log("supervising")
        return bool(lines) and _status(lines[0]["metrics"].replace("/metrics", "/readyz")) == 200

    def workers(self) -> list[int]:
        """Return the process ids of its worker processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def _why(self) -> str:
        return f"exit code {self.process.poll()}: {self.err[-4000:]}"


def wait_for(look: Callable[[], _T], why: Callable[[], str] | None = None, *, deadline: float = DEADLINE) -> _T:
    """Look until there is something; return it."""
    until = time.monotonic() + deadline
    while not (found := look()):
        if time.monotonic() > until:
            raise AssertionError(why() if why else f"nothing within {deadline} s")
        time.sleep(0.02)
    return found


def write_modules(folder: Path, **modules: str) -> None:
    """Write Python modules into a folder."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)


def block_imports(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return variables under which Python processes do not find these packages, as if they were not installed."""
    place = folder / "blocked"
    place.mkdir()
    (place / "sitecustomize.py").write_text(
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Finder(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        f"        return None if name in {list(names)!r} else PathFinder.find_spec(name, path, target)\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = Finder\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(place), str(ROOT)])}


def _is_log_line(line: str) -> bool:
    return re.fullmatch(r"\{.*\}", line) is not None and "event" in json.loads(line)


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            code: int = answer.status
            return code
    except OSError:
        return 0
