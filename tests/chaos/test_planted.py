"""Bugs that are planted in the workers are caught: a short run of the suite, which the checker has to fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos.features import ON
from tests.chaos.run import Plan, judge, run

LOST = "no acknowledged publish without an effect in every group"
DEAD = "dead letters only for poison, one each"
TAKEN = "nothing taken from a live worker"
ONCE = "a publish with once is stored once, however often it is repeated"
#: Bug → the faults that bring it out, and the promise that it breaks.
BUGS = {
    "ack_before_handler": (["busy_kill", "worker_kill"], LOST),
    "claim_from_live": (["long_handler"], TAKEN),
    "heal_at_end": (["group_lost", "group_destroy"], LOST),
    "dead_letter_without_owner": (["stop_rejecting"], DEAD),
}
if ON["retention"]:
    BUGS["trim_unread"] = (["host_kill"], LOST)
if ON["once"]:
    BUGS["repeat_as_new"] = (["drop_replies", "cut"], ONCE)
#: A busy machine does little in so short a time, and a fault meets little.
TRIES = 6
pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("chaos"), pytest.mark.timeout(400)]


async def broken(folder: Path, kinds: list[str], plant: str = "") -> set[str]:
    """Return the promises that a short run broke."""
    plan = Plan(
        minutes=0.02, seed="planted", rate=80.0, kinds=kinds, pause=1.0, supervisors=1, processes=2,
        plant=plant and f"tests.chaos.planted.{plant}", settle=20.0, quiet=True,
        variables={"HYPERBUS_RETAIN_AGE": "0.2"},
    )  # fmt: skip
    await run(plan, folder)
    judged = judge(folder, "--json")
    return {verdict["promise"] for verdict in json.loads(judged.stdout)["verdicts"] if not verdict["holds"]}


@pytest.mark.parametrize("bug", list(BUGS))
async def test_a_planted_bug_is_caught(bug, tmp_path):
    """By the promise that it breaks, in one of a few short runs: a fault that meets nothing shows nothing."""
    kinds, promise = BUGS[bug]
    found = set()
    for number in range(TRIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        found |= await broken(folder, kinds, bug)
        if promise in found:
            return
    assert promise in found


async def test_the_same_faults_are_survived_without_a_bug(tmp_path):
    """So it was the bug that was caught."""
    assert await broken(tmp_path, sorted({kind for kinds, _ in BUGS.values() for kind in kinds})) == set()
