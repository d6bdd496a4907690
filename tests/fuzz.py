"""Looks for examples that break a property: tries new ones, round after round, until the time is up or one is found.

python -m tests.fuzz --minutes 20

It is a plugin of pytest as well, which tells how to keep and how to repeat what was found.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Generator
from typing import Any

import pytest

from tests.commands import ROOT

#: How many times the usual number of examples a round tries.
TIMES = 10
PLACES = ("tests/unit", "tests/conformance")
FOUND = "what was found"
#: What a repetition needs to be the same.
VARIABLES = ("HYPERBUS_TEST_EXAMPLES", "HYPERBUS_TEST_SERVERS")
#: How its note on an example begins, in newer and in older versions.
FALSIFYING = ("Failing test case", "Falsifying example")
#: What hypothesis writes of a call: a line for each argument, and more where its value has several.
ARGUMENT = re.compile(r"^    (\w+)=", re.MULTILINE)


def command(seed: int, *places: str) -> list[str]:
    """Return the arguments for Python that search with this seed."""
    options = ["-q", "--no-header", "-m", "hypothesis", "-p", "tests.fuzz", "--hypothesis-profile", "search"]
    return ["-m", "pytest", *options, "--hypothesis-seed", str(seed), "-o", "timeout=0", *places]


def example_line(note: str, fixtures: set[str]) -> str | None:
    """Return the decorator that keeps a falsifying example; None where its values cannot be written down."""
    call = note.partition("(\n")[2].rpartition("\n)")[0]
    starts = [match.start() for match in ARGUMENT.finditer(call)]
    arguments = [call[start:end].strip() for start, end in zip(starts, [*starts[1:], len(call)], strict=True)]
    kept = [argument for argument in arguments if argument.partition("=")[0] not in fixtures]
    if not kept or any("=data(" in argument for argument in kept):
        return None
    # a comment of hypothesis says which parts do not matter
    text = " ".join(line.partition("  # or any")[0].strip() for argument in kept for line in argument.splitlines())
    return f"@example({text.rstrip(',')})"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say of a property that is broken how to keep the example, and how to find it again."""
    report = yield
    notes = getattr(call.excinfo.value, "__notes__", []) if call.excinfo is not None else []
    falsifying = [note for note in notes if note.startswith(FALSIFYING)]
    if isinstance(item, pytest.Function) and falsifying:
        line = example_line(falsifying[0], set(item.fixturenames))
        seed = item.config.getoption("--hypothesis-seed")
        variables = [f"{name}='{os.environ[name]}'" for name in VARIABLES if name in os.environ]
        again = " ".join([*variables, sys.executable, *command(seed), f"'{item.nodeid.partition('@')[0]}'"])
        keep = line or "(by the @reproduce_failure above: its values cannot be written down)"
        report.sections.append((FOUND, f"To keep it, above @given:\n    {keep}\nTo find it again:\n    {again}\n"))
    return report


def search(minutes: float, seed: int, workers: int, places: list[str]) -> int:
    """Run rounds until the time is up or one fails; return the exit code."""
    environment = {**os.environ, "HYPERBUS_TEST_EXAMPLES": os.environ.get("HYPERBUS_TEST_EXAMPLES", str(TIMES))}
    began, rounds = time.monotonic(), 0
    while not rounds or time.monotonic() - began < minutes * 60:
        rounds += 1
        words = [sys.executable, *command(seed, *places), "-n", str(workers)]
        done = subprocess.run(words, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
        passed = (time.monotonic() - began) / 60
        last = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
        print(f"round {rounds}, seed {seed}, {passed:.1f} of {minutes:g} minutes: {last}", flush=True)
        if done.returncode:
            print(done.stdout + done.stderr, flush=True)
            print(f"found something in round {rounds}; see '{FOUND}' above", file=sys.stderr)
            return 1
        seed = random.randrange(2**32)
    return 0


def main() -> int:
    """Read the command line, search, and return the exit code."""
    parser = argparse.ArgumentParser(description="Look for examples that break a property.")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, help="of the first round; a random one if not given")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("places", nargs="*", default=PLACES, help="files or folders of tests")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    return search(options.minutes, seed, options.workers, options.places)


if __name__ == "__main__":
    sys.exit(main())
