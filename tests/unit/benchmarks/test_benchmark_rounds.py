"""Which questions are asked, how often, and what of them is kept; and how peers are asked."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from benchmarks import rounds, run
from benchmarks.catalogue import all_questions
from benchmarks.form import DEFAULT, FULL, QUICK, Depth, Form
from benchmarks.peer_scripts import Peer, find_peers, question_of
from benchmarks.question import Bar, Figure, Place, Question, with_needed
from benchmarks.report import rows_of
from benchmarks.rounds import Taken, run_rounds
from benchmarks.run import choose, parse

PLACE = Place("127.0.0.1", 1, 1.0, "asyncio")
SCRIPT = """
import json, sys
if sys.argv[1] == "--list":
    print("a line of noise")
    print(json.dumps(["publish_one", "something_else"]))
else:
    count = int(sys.argv[sys.argv.index("--count") + 1])
    print("a line of noise")
    print(json.dumps({"peer": "Fake", "version": "1.2", "task": sys.argv[1], "count": count, "seconds": count / 50}))
"""


def question(name: str, *, of: str | None = None, **options: Any) -> Question:
    bars = (Bar(1, of=of),) if of else ()
    return Question(name, lambda _place: {}, (Figure(name, name, bars=bars),), **options)


def names(questions: list[Question]) -> list[str]:
    return [one.name for one in questions]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done: `empty` for a server that is emptied."""
    done: list[str] = []
    monkeypatch.setattr(rounds, "empty", lambda _place: done.append("empty"))
    return done


def test_every_round_asks_every_question_on_an_empty_server(asked):
    """Interleaved: one after the other, and then all again."""

    def ask(one: Question, _place: Place) -> tuple[dict[str, float], Any]:
        asked.append(one.name)
        return {one.name: float(len(asked))}, "asyncio"

    form = Form("test", Depth.DEFAULT, rounds=2, warm_ups=1, factor=1)
    taken = run_rounds([question("a"), question("b"), question("seldom", rounds=1)], form, PLACE, ask)
    warm_up = ["empty", "a", "empty", "b"]
    assert asked == [*warm_up, *warm_up, "empty", "seldom", *warm_up, "empty"]
    assert {name: len(values) for name, values in taken.values.items()} == {"a": 2, "b": 2, "seldom": 1}
    assert taken.values["a"][0] > 4, "the warm-up's figures are thrown away"


def test_the_default_form_has_five_rounds_and_a_warm_up():
    """A median of less says little."""
    assert DEFAULT.rounds >= 5
    assert DEFAULT.warm_ups == 1


def test_what_a_question_is_compared_with_is_asked_too():
    """And what that is compared with, in the order of the table."""
    known = [question("a"), question("b", of="a"), question("c", of="b"), question("d", of="nobody")]
    assert names(with_needed([known[2]], known)) == ["a", "b", "c"]
    assert names(with_needed([known[3]], known)) == ["d"]


def test_only_takes_beginnings_of_names():
    """A name that means nothing is an error that says what there is."""
    known = [question("a"), question("b.one"), question("bc", of="a")]
    assert names(choose(known, DEFAULT, ["bc"])) == ["a", "bc"]
    assert names(choose(known, DEFAULT, ["b"])) == ["a", "b.one", "bc"]
    assert names(choose(known, DEFAULT, ["peers"])) == ["b.one"]
    with pytest.raises(SystemExit, match="no question begins with 'z'"):
        choose(known, DEFAULT, ["z"])


def test_a_form_asks_what_is_not_too_deep_for_it():
    """A minute asks less than everything."""
    known = [question("a", depth=Depth.QUICK), question("b"), question("c", depth=Depth.FULL)]
    assert [names(choose(known, form, [])) for form in (QUICK, DEFAULT, FULL)] == [["a"], ["a", "b"], ["a", "b", "c"]]


def test_every_figure_has_a_name_of_its_own_and_is_compared_with_one_that_exists():
    """A bar about a name that is written wrong would never be missed."""
    figures = [figure for one in all_questions() for figure in one.figures]
    known = [figure.name for figure in figures]
    assert len(set(known)) == len(known)
    peers = {f"faststream.{task}" for task in ("publish_one", "publish_tasks", "consume_one", "consume_batch")}
    assert {other for figure in figures for other in figure.others} - peers <= set(known)


@pytest.mark.parametrize("form", [QUICK, DEFAULT, FULL], ids=lambda form: form.name)
def test_every_bar_is_looked_at_in_the_default_form(form):
    """Quick may leave out some that take long: recovery, and the backlog."""
    with_bars = {one.name for one in all_questions() if any(figure.bars for figure in one.figures)}
    left_out = with_bars - set(names(choose(all_questions(), form, [])))
    assert left_out == ({"recovery", "backlog"} if form is QUICK else set())


def test_a_peer_is_asked_in_its_own_python(tmp_path):
    """Its last line counts; how many events it gets follows from how fast it was."""
    (tmp_path / "fake.py").write_text(SCRIPT)
    (tmp_path / "_not_a_peer.py").write_text("")
    (peer,) = find_peers(sys.executable, everyone=True, folder=tmp_path)
    assert peer.tasks() == ["publish_one"]
    assert peer.ask("publish_one", PLACE) == ({"fake.publish_one": 50.0}, "-")
    peer.rates["publish_one"] = 7_000.0
    assert peer.ask("publish_one", PLACE) == ({"fake.publish_one": 50.0}, "-")
    assert question_of(peer, "publish_one").figures[0].title == "Fake 1.2: publish, one by one"
    (row,) = rows_of(
        question_of(peer, "publish_one").figures, Taken({"fake.publish_one": [50.0]}, {"fake.publish_one": "-"})
    )
    assert row.median == 50.0


def test_a_peer_that_cannot_run_is_left_out(tmp_path, capsys):
    """With its last words."""
    (tmp_path / "fake.py").write_text("import nowhere_to_be_found")
    assert Peer(sys.executable, tmp_path / "fake.py", "fake", {}).tasks() == []
    assert "without fake: ModuleNotFoundError" in capsys.readouterr().err


def test_only_one_peer_takes_part_unless_everyone_does(tmp_path):
    """Bars are about it."""
    for name in ("arq", "faststream"):
        (tmp_path / f"{name}.py").write_text(SCRIPT)
    assert [peer.name for peer in find_peers("python", everyone=False, folder=tmp_path)] == ["faststream"]
    assert [peer.name for peer in find_peers("python", everyone=True, folder=tmp_path)] == ["arq", "faststream"]


def test_a_python_for_peers_that_is_not_there_is_told(capsys):
    """Else bars would go unmeasured without a word."""
    with pytest.raises(SystemExit):
        parse(["--peers", "/nowhere/python"])
    assert "make bench installs it" in capsys.readouterr().err
    assert parse(["--quick", "--rounds", "3"]).form.rounds == 3


@pytest.mark.parametrize(
    ("arguments", "written"), [([], 1), (["--only", "import"], 0), (["--rounds", "1"], 0)], ids=str
)
def test_only_a_whole_run_replaces_the_results(monkeypatch, arguments, written):
    """What the documents show does not come from a look at one question, or from one round."""
    calls: list[object] = []
    monkeypatch.setattr("sys.argv", ["benchmarks.run", "--json", *arguments])
    monkeypatch.setattr(run, "measure", lambda _options: ([], {}))
    monkeypatch.setattr(run, "write", lambda *what: calls.append(what))
    assert run.main() == 0
    assert len(calls) == written
