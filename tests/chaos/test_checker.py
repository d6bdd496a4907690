"""The checker, tried on made-up histories: each promise once kept and once broken; and excuses where they are due."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.run import judge
from tests.chaos.story import STREAM, Story
from tests.commands import ROOT

LOST = "no acknowledged publish without an effect in every group"
DEAD = "dead letters only for poison, one each"
ORDER = "order by key where asked"
ROWS = "database rows exactly once"
PENDING = "nothing pending at the end"
PHANTOM = "no effect of a publish that was refused"
STORED = "an event is stored once"
ONCE = "a publish with once is stored once, however often it is repeated"
TAKEN = "nothing taken from a live worker"
AGAIN = "nothing done again for a refused ack"
BACK = "every stream worked on again soon after the server is back"
MEMORY = "memory under the figures of the start"
ENDED = "supervisors end when told to, their workers with them"
ENOUGH = "seen enough"


@pytest.fixture
def story(tmp_path: Path) -> Story:
    made = Story(tmp_path)
    for number in range(3):
        made.event(f"e{number}", number, at=10.0 + 2 * number)
    return made


def test_a_run_in_which_all_went_well_is_passed(story):
    """By the program too, which exits with 0 and knows no hyperbus."""
    assert story.broken() == {}
    judged = judge(story.folder, "--json")
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["figures"]["published"] == {"stored": 3}


def test_the_checker_knows_nothing_of_hyperbus():
    """What it needs is the standard library, and nothing that could be wrong in the same way."""
    look = "import sys, tests.chaos.checker; print([n for n in sys.modules if n.startswith(('hyperbus', 'redis'))])"
    seen = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_a_broken_promise_is_told_with_exit_code_1(story):
    """The report names what is missing."""
    story.publish("lost", 7)
    story.write()
    judged = judge(story.folder)
    assert judged.returncode == 1
    assert f"BROKEN {LOST}" in judged.stdout
    assert "lost" in judged.stdout


@pytest.mark.parametrize("group", ["plain", "ordered", "rows"])
def test_an_event_without_effect_in_one_group_is_lost(story, group):
    """Each group counts, that of the rows too."""
    story.publish("x", 9)
    for other in {"plain", "ordered"} - {group}:
        story.handle("x", 9, at=20.0, group=other)
    story.rows += [] if group == "rows" else ["x"]
    assert list(story.broken()) == [LOST]


def test_a_handler_that_began_and_never_ended_is_no_effect(story):
    """Nor is one that failed."""
    story.event("x", 9, at=20.0)
    story.effects[-3]["ok"] = False  # the end in "plain"
    assert list(story.broken()) == [LOST]
    del story.effects[-3]
    (story.folder / "events.db").unlink()
    assert list(story.broken()) == [LOST]


@pytest.mark.parametrize("outcome", ["uncertain", "refused", "silence"])
def test_only_what_was_acknowledged_has_to_arrive(story, outcome):
    """The rest may be there or not."""
    story.publish("x", 9, outcome=outcome)
    assert story.broken() == {}


@pytest.mark.parametrize("kind", ["flushall", "del"])
def test_what_the_server_was_told_to_forget_is_excused(story, kind):
    """Also what was in flight when the command returned; not what was published later."""
    more = {"stream": STREAM} if kind == "del" else {}
    story.fault(kind, 40.0, 41.0, **more)
    story.publish("before", 7, at=30.0)
    story.publish("in flight", 8, at=40.9)
    story.event("enough", 6, at=42.0)
    assert story.broken() == {}
    story.publish("after", 9, at=41.1)
    (story.folder / "events.db").unlink()
    assert len(story.broken()[LOST]) == 3


def test_what_was_done_before_a_mark_is_not_excused(story):
    """A mark says that everything up to it was done before the server was told to forget."""
    story.marks.append({"t": 35.0, "letters": [], "waiting": [f"{STREAM} 5-1"]})
    story.fault("flushall", 40.0, 41.0)
    story.fault("flushall", 50.0, 51.0)
    story.publish("after the mark", 8, at=36.0)
    story.publish("waits at the mark", 5, at=30.0)
    story.event("enough", 9, at=60.0)
    assert story.broken() == {}
    story.publish("before the mark", 7, at=30.0)
    (story.folder / "events.db").unlink()
    assert all("before the mark" in line for line in story.broken()[LOST])


def test_dead_letters_that_a_flush_took_away_are_remembered(story):
    """Those that were there at the mark before it; none of them twice."""
    story.publish("p", 9, poison="raise")
    story.marks += [
        {"t": at, "waiting": [], "letters": [{"id": "p", "entry": "9-1", "reason": "", "message": "", "stream": STREAM, "group": group}
                              for group in story.groups]}
        for at in (30.0, 35.0)
    ]  # fmt: skip
    story.fault("flushall", 40.0, 41.0)
    story.event("enough", 10, at=60.0)
    story.event("more", 11, at=62.0)
    assert story.broken() == {}
    story.marks.clear()
    (story.folder / "events.db").unlink()
    assert story.broken() == {}, "without a mark it is excused"


def test_deleting_another_stream_excuses_nothing(story):
    """Nor does a destroyed group."""
    story.fault("del", 40.0, 41.0, stream="events:chaos.beta")
    story.fault("group_destroy", 40.0, 41.0, stream=STREAM, group="plain")
    story.publish("x", 9)
    assert list(story.broken()) == [LOST]


def test_poison_has_a_dead_letter_in_every_group(story):
    """And is lost without."""
    story.publish("p", 9, poison="raise")
    story.bury("p", 9, "plain", "ordered", "rows")
    assert story.broken() == {}
    story.groups["rows"]["dead"].clear()
    (story.folder / "events.db").unlink()
    assert list(story.broken()) == [LOST]


def test_an_innocent_event_has_no_dead_letter(story):
    """Though it was handled as well."""
    story.bury("e1", 1, "plain")
    assert list(story.broken()) == [DEAD]


def test_a_second_dead_letter_of_one_entry_is_told(story):
    """Unless the group was lost meanwhile, and met the entry again."""
    story.publish("p", 9, poison="raise")
    story.bury("p", 9)
    story.bury("p", 9, "plain")
    assert list(story.broken()) == [DEAD]
    story.fault("group_destroy", 50.0, 51.0, stream=STREAM, group="plain")
    (story.folder / "events.db").unlink()
    assert story.broken() == {}


def test_a_dead_letter_of_nobodys_event_is_told(story):
    """It was made up, or its bytes were changed."""
    story.bury("nobody", 99, "plain")
    assert list(story.broken()) == [DEAD]


def test_order_is_kept_when_each_began_after_the_one_before_was_first_done(story):
    """A later repetition of the first one changes nothing."""
    story.handle("e0", 0, at=30.0, group="ordered", worker=2)
    assert story.broken() == {}


def test_order_is_broken_by_one_that_began_too_early(story):
    """In the group that asks for order, and only there."""
    story.event("x3", 3, at=20.0)
    story.event("x4", 4, at=19.0)
    assert list(story.broken()) == [ORDER]
    story.manifest["ordered"] = []
    (story.folder / "events.db").unlink()
    assert story.broken() == {}


def test_rows_are_there_once(story):
    """A second one of an event is one too many; so is one of poison."""
    story.rows.append("e1")
    assert list(story.broken()) == [ROWS]


def test_a_row_of_poison_is_told(story):
    """Poison never gets that far."""
    story.publish("p", 9, poison="raise")
    story.bury("p", 9)
    story.rows.append("p")
    assert list(story.broken()) == [ROWS]


@pytest.mark.parametrize("what", ["pending", "unread", "parked"])
def test_what_is_left_at_the_end_is_told(story, what):
    """Pending, parked, or never read."""
    story.groups["plain"][what] = 1
    assert list(story.broken()) == [PENDING]


def test_a_group_that_is_missing_is_told(story):
    """The stream holds entries that nobody will read."""
    story.groups["plain"]["missing"] = True
    assert list(story.broken()) == [PENDING]


def test_a_refused_publish_has_no_effect(story):
    """Not sent means not sent."""
    story.publish("x", 9, outcome="refused")
    story.handle("x", 9, at=20.0)
    assert list(story.broken()) == [PHANTOM]


def test_an_effect_of_what_nobody_published_is_told(story):
    """There is no such event."""
    story.handle("x", 9, at=20.0)
    assert list(story.broken()) == [PHANTOM]


def test_an_event_that_lies_in_its_stream_twice_is_told(story):
    """One publish, one entry."""
    story.handle("e1", 8, at=30.0)
    assert list(story.broken()) == [STORED]


def test_a_publish_with_once_is_one_entry_however_often_it_was_answered(story):
    """What handlers saw counts, and what its answers named."""
    story.publish("x", 9, at=30.0, outcome="uncertain", once=True)
    story.answer("x", 9, at=31.0)
    for group in ("plain", "ordered"):
        story.handle("x", 9, at=32.0, group=group)
    story.rows.append("x")
    assert story.broken() == {}
    story.answer("x", 10, at=33.0)
    (story.folder / "events.db").unlink()
    assert list(story.broken()) == [ONCE]
    story.published.pop()
    story.handle("x", 8, at=34.0)
    (story.folder / "events.db").unlink()
    assert list(story.broken()) == [ONCE]


@pytest.mark.parametrize(
    ("kind", "begin", "is_excused"),
    [("flushall", 30.2, True), ("flushall", 33.0, False), ("flushall", 20.0, False), ("del", 30.2, False)],
)
def test_a_second_entry_is_excused_only_if_all_was_forgotten_between_the_repeats(story, kind, begin, is_excused):
    """Deleting the stream does not make the server forget what it was given."""
    story.fault(kind, begin, begin + 0.3, stream=STREAM)
    story.publish("x", 8, at=30.0, outcome="uncertain", once=True)
    story.answer("x", 9, at=31.0)
    for at, seq in ((30.1, 8), (31.1, 9)):
        story.handle("x", seq, at=at)
    story.handle("x", 9, at=31.1, group="ordered")
    story.rows.append("x")
    story.event("enough", 20, at=60.0)
    assert list(story.broken()) == ([] if is_excused else [ONCE])


def test_what_was_uncertain_is_not_refused_by_a_later_answer(story):
    """It may be there, so an effect of it is no phantom; nor does it have to arrive."""
    story.publish("x", 9, at=30.0, outcome="uncertain", once=True)
    story.answer("x", at=31.0, outcome="refused")
    assert story.broken() == {}
    story.handle("x", 9, at=32.0)
    (story.folder / "events.db").unlink()
    assert story.broken() == {}


def test_what_a_live_worker_handles_is_not_given_to_another(story):
    """However long it takes."""
    story.handle("e1", 1, at=30.0, took=15.0)
    assert story.broken() == {}
    story.handle("e1", 1, at=34.0, worker=2)
    (story.folder / "events.db").unlink()
    assert list(story.broken()) == [TAKEN]


@pytest.mark.parametrize(
    ("kind", "more", "is_excused"),
    [
        ("stop", {"pids": [1]}, True),
        ("stop", {"pids": [3]}, False),
        ("supervisor_kill", {"pids": [1, 2]}, True),
        ("half_open", {}, True),
        ("group_destroy", {"stream": STREAM, "group": "plain"}, True),
        ("worker_kill", {"pids": [3]}, False),
        ("server_kill", {}, False),
        ("outage", {}, False),
        ("latency", {}, False),
        ("out_of_memory", {}, False),
        ("cut", {}, False),
    ],
)
def test_only_some_faults_excuse_taking_from_a_worker(story, kind, more, is_excused):
    """Those that make a worker look dead, or its group start again; a worker outlives an outage."""
    story.handle("e1", 1, at=30.0, took=15.0)
    story.fault(kind, 31.0, 33.0, **more)
    story.handle("e1", 1, at=34.0, worker=2)
    assert list(story.broken()) == ([] if is_excused else [TAKEN])


@pytest.mark.parametrize(("at", "is_excused"), [(34.5, True), (37.0, False)])
def test_a_worker_that_was_stopped_begins_what_it_lost_only_just_after_that(story, at, is_excused):
    """A retry of its own that was due meanwhile; by and by it has to notice that the entry is another's."""
    story.handle("e1", 1, at=30.0, worker=2, ok=False)
    story.fault("stop", 30.2, 34.4, pids=[2])
    story.handle("e1", 1, at=32.0, took=6.0)
    story.handle("e1", 1, at=at, worker=2)
    assert list(story.broken()) == ([] if is_excused else [TAKEN])


@pytest.mark.parametrize("sample", [{"rss": {"1": 101}, "used": 1}, {"rss": {"1": 1}, "used": 1001}])
def test_more_memory_than_was_said_is_told(story, sample):
    """Of a worker, and of the server."""
    story.samples.append({"t": 2.0, **sample})
    assert list(story.broken()) == [MEMORY]


def test_a_server_that_was_down_has_no_figure(story):
    """That sample counts for the workers only."""
    story.samples.append({"t": 2.0, "rss": {}, "used": None})
    assert story.broken() == {}


def test_a_supervisor_that_ends_by_itself_is_told(story):
    """So are workers that outlive theirs, and a stop that does not end with 0."""
    story.fault("supervisor_ended", 20.0, 20.0, code=21, said=["crash loop"])
    story.fault("supervisor_kill", 30.0, 31.0, pids=[5], left=[5])
    story.manifest["exit_codes"] = [0, 22]
    story.manifest["deaths"] = ["exit code 99", "exit code 0", "killed by SIGKILL", "exit code 1"]
    assert len(story.broken()[ENDED]) == 4


def test_a_run_that_saw_too_little_proves_nothing(story):
    """Too few faults, too few events, no repeat, or a group that never worked."""
    story.manifest["faults"] = {"cut": 1}
    story.manifest["least_repeated"] = 1
    story.manifest["least_events"] = 4
    story.manifest["groups"] = ["plain", "ordered"]
    story.effects = [line for line in story.effects if line["group"] != "ordered"]
    broken = story.broken()
    assert len(broken[ENOUGH]) == 4


def test_what_was_done_while_acks_were_refused_is_not_done_again(story):
    """By a worker that lived; what a dead one left is."""
    story.fault("acks_refused", 10.0, 14.0)
    story.handle("e1", 1, at=30.0, worker=2)
    assert story.broken() == {}
    story.handle("e1", 1, at=31.0)
    (story.folder / "events.db").unlink()
    assert list(story.broken()) == [AGAIN]
    story.fault("flushall", 30.0, 30.1)
    (story.folder / "events.db").unlink()
    assert AGAIN not in story.broken()


@pytest.mark.parametrize(("seconds", "is_broken"), [(3.0, False), (26.0, True), (None, True)])
def test_a_stream_that_nobody_works_on_long_after_the_server_is_back_is_told(story, seconds, is_broken):
    """Whether it came late or never; a handler that hangs excuses it."""
    story.fault("back", 60.0, 90.0, of="rights_taken", seconds=seconds)
    assert list(story.broken()) == ([BACK] if is_broken else [])
    story.fault("poison_hang", 20.0, 20.1)
    (story.folder / "events.db").unlink()
    assert story.broken() == {}
