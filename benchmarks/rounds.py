"""The rounds: in each of them every question is asked once, so that what changes meanwhile changes for all of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.bare import Bare
from benchmarks.form import Form
from benchmarks.question import Loop, Place, Question, Values

#: Asks a question once, on an empty server.
Ask = Callable[[Question, Place], tuple[Values, Loop]]


@dataclass(slots=True)
class Taken:
    """What was measured: by figure the value of each round, and the loop it was measured on."""

    values: dict[str, list[float]] = field(default_factory=dict)
    loops: dict[str, Loop] = field(default_factory=dict)

    def add(self, values: Values, loop: Loop) -> None:
        """Keep what one question answered in one round."""
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)
            self.loops[name] = loop


def run_rounds(questions: Sequence[Question], form: Form, place: Place, ask: Ask) -> Taken:
    """Ask every question in every round; show on stderr how it goes."""
    taken = Taken()
    started = time.monotonic()
    for number in range(1 - form.warm_ups, form.rounds + 1):
        warming = number < 1
        shown = "warm-up" if warming else f"round {number} of {form.rounds}"
        for question in questions:
            if question.rounds is not None and not 1 <= number <= question.rounds:
                continue
            _tell(f"{time.monotonic() - started:4.0f} s  {shown}: {question.name}")
            empty(place)
            values, loop = ask(question, place)
            if not warming:
                taken.add(values, loop)
        _tell(f"{time.monotonic() - started:4.0f} s  {shown} done", last=True)
    empty(place)
    return taken


def empty(place: Place) -> None:
    """Forget everything on the server, which is the benchmark's own."""
    with Bare(place.host, place.port) as bare:
        bare.ask(b"FLUSHALL SYNC\r\n")


def _tell(text: str, *, last: bool = False) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="\n" if last else "", file=sys.stderr, flush=True)
    elif last:
        print(text, file=sys.stderr, flush=True)
