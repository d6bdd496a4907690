"""A question in a fresh process, which is what a worker process is: its loop, its garbage collector.

Run as `python -m benchmarks.measuring MODULE NAME PLACE`, it prints what it measured as its last line.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast

from benchmarks.question import Loop, Place, Question, Values
from hyperbus.supervisor.worker_process.event_loop import LoopName, loop_factory
from hyperbus.supervisor.worker_process.garbage_collector import calm_collector

ROOT = Path(__file__).parents[1]
#: The longest that one question may take once, in seconds.
TIMEOUT = 300.0
T = TypeVar("T")


def run_on(loop: LoopName, main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as a worker process would."""
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        return runner.run(main)


def ask(question: Question, place: Place) -> tuple[Values, Loop]:
    """Measure in a fresh process; return the values, and the loop that they were measured on.

    Raises:
        SystemExit: it failed; what it said was shown.
    """
    arguments = [question.measure.__module__, question.name, json.dumps(dataclasses.asdict(place))]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.measuring", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(f"the question {question.name} failed with exit code {ended.returncode}")
    answer = json.loads(ended.stdout.splitlines()[-1])
    return answer["values"], answer["loop"]


def _answer(question: Question, place: Place) -> tuple[Values, Loop]:
    calm_collector()
    if inspect.iscoroutinefunction(question.measure):
        measure = cast("Callable[[Place], Coroutine[Any, Any, Values]]", question.measure)
        return run_on(place.loop, measure(place)), place.loop
    values = question.measure(place)
    assert not isinstance(values, Awaitable)
    return values, "-"


def main() -> None:
    """Answer one question."""
    module, name, where = sys.argv[1:]
    questions: tuple[Question, ...] = importlib.import_module(module).QUESTIONS
    (question,) = [question for question in questions if question.name == name]
    values, loop = _answer(question, Place(**json.loads(where)))
    print(json.dumps({"values": values, "loop": loop}))


if __name__ == "__main__":
    main()
