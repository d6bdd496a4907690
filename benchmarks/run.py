"""The runner: `python -m benchmarks.run` starts a server, asks the questions in rounds, and shows the figures.

It ends with exit code 1 when a figure is below its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.catalogue import all_questions
from benchmarks.chart import chart
from benchmarks.form import DEFAULT, FULL, QUICK, Depth, Form
from benchmarks.machine import describe, line
from benchmarks.measuring import ask as ask_here
from benchmarks.peer_scripts import Peer, find_peers, question_of
from benchmarks.question import Loop, Place, Question, Values, with_needed
from benchmarks.report import Row, rows_of
from benchmarks.rounds import run_rounds
from benchmarks.server import server
from benchmarks.table import lines
from hyperbus.supervisor.worker_process.event_loop import chosen_loop

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks a question where it belongs: in this Python or in the peers'."""

    peers: dict[str, Peer]

    def __call__(self, question: Question, place: Place) -> tuple[Values, Loop]:
        """Ask once."""
        name, _, task = question.name.partition(".")
        return self.peers[name].ask(task, place) if task else ask_here(question, place)


def choose(questions: Sequence[Question], form: Form, only: Sequence[str]) -> list[Question]:
    """Return the questions to ask: those of the form, or those named and what they are compared with.

    A name means every question that begins with it; "peers" means those of all peers.

    Raises:
        SystemExit: a name means nothing.
    """
    if not only:
        return with_needed([question for question in questions if question.depth <= form.depth], questions)
    chosen: list[Question] = []
    for name in only:
        found = [one for one in questions if one.name.startswith(name) or (name == "peers" and "." in one.name)]
        if not found:
            raise SystemExit(f"no question begins with {name!r}; there are {', '.join(one.name for one in questions)}")
        chosen += found
    return with_needed(chosen, questions)


def report(rows: Sequence[Row], form: Form, machine: dict[str, str]) -> dict[str, Any]:
    """Return what the JSON says."""
    return {"form": form.name, "machine": machine, "rows": [asdict(row) for row in rows]}


def write(rows: Sequence[Row], form: Form, machine: dict[str, str], folder: Path = RESULTS) -> None:
    """Write JSON and chart; those of the quick form beside the others, which are better."""
    folder.mkdir(exist_ok=True)
    stem = "quick" if form.depth == Depth.QUICK else "latest"
    (folder / f"{stem}.json").write_text(json.dumps(report(rows, form, machine), indent=1) + "\n")
    (folder / f"{stem}.svg").write_text(chart(rows, line(machine)))


def exit_code(rows: Sequence[Row]) -> int:
    """Return 1 when a figure is below its bar."""
    return int(any(row.below for row in rows))


def measure(options: argparse.Namespace) -> tuple[list[Row], dict[str, str]]:
    """Run the rounds on a server of their own."""
    form: Form = options.form
    peers = find_peers(options.peers, everyone=options.all_peers or form.depth == Depth.FULL) if options.peers else []
    tasks = [(peer, task) for peer in peers for task in peer.tasks()]
    questions = choose([*all_questions(), *(question_of(peer, task) for peer, task in tasks)], form, options.only)
    with server() as (host, port):
        place = Place(host, port, form.factor, chosen_loop(options.loop))
        machine = describe(place)
        taken = run_rounds(questions, form, place, Asker({peer.name: peer for peer in peers}))
    asked = {question.name for question in questions}
    told = {f"{peer.name}.{task}": question_of(peer, task) for peer, task in tasks}  # versions are known by now
    figures = [figure for one in questions for figure in told.get(one.name, one).figures if one.name in asked]
    return rows_of(figures, taken), machine


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--quick", dest="form", action="store_const", const=QUICK, help="a minute")
    forms.add_argument("--full", dest="form", action="store_const", const=FULL, help="everything, all peers too")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="these, and what they are compared with; nothing is written",
    )
    parser.add_argument("--rounds", type=int, help="how often each question is asked; nothing is written then")
    parser.add_argument("--loop", choices=["auto", "uvloop", "asyncio"], default="auto")
    parser.add_argument("--peers", metavar="PYTHON", help="the Python that the peers are installed for")
    parser.add_argument("--all-peers", action="store_true", help="all of them, and not only those that bars are about")
    parser.add_argument("--json", action="store_true", help="JSON on stdout in place of the table")
    parser.set_defaults(form=DEFAULT)
    options = parser.parse_args(arguments)
    if options.peers and not Path(options.peers).exists():
        parser.error(f"--peers {options.peers}: there is no such file; make bench installs it")
    if options.rounds:
        options.form = replace(options.form, rounds=options.rounds)
    return options


def main() -> int:
    """Measure, show, write."""
    options = parse()
    rows, machine = measure(options)
    if options.json:
        print(json.dumps(report(rows, options.form, machine)))
    else:
        print(line(machine))
        print("\n".join(lines(rows, colours=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))))
    if not options.only and not options.rounds:  # what is shown elsewhere comes from whole runs
        write(rows, options.form, machine)
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main())
