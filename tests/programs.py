"""Small programs that use hyperbus, run as processes of their own: what they say, and how they end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

from tests.commands import DEADLINE, environment, wait_for

#: What most programs begin with.
HEAD = """
import asyncio
from hyperbus import Backoff, Bus, Consumer, Delivery, Event, EventData, Reject, Retry, consumer

class Started(EventData, type="workflow.started"):
    contract: str = "ERC20"

"""


class Program(NamedTuple):
    """A program that was run to its end."""

    code: int
    out: str
    err: str


def run_program(folder: Path, text: str, *, variables: Mapping[str, str] | None = None, head: str = HEAD) -> Program:
    """Run a program to its end."""
    (folder / "program.py").write_text(head + text)
    ended = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=environment(**(variables or {})), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    return Program(ended.returncode, ended.stdout, ended.stderr)


class RunningProgram:
    """A program that goes on; leaving the context kills it."""

    def __init__(self, folder: Path, text: str, *, head: str = HEAD) -> None:
        (folder / "program.py").write_text(head + text)
        self._err = folder / "program.err"
        with self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "program.py"], cwd=folder, env=environment(), stdin=subprocess.DEVNULL,
                stdout=err, stderr=err,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self._err.read_text()

    def wait_until_it_says(self, *words: str, deadline: float = DEADLINE) -> str:
        """Wait until it has said all of this; return all that it said."""
        wait_for(
            lambda: all(word in self.said for word in words), lambda: f"it only said: {self.said}", deadline=deadline
        )
        return self.said
