"""`peers_symptoms.toml` accounts for every symptom of other systems, and names tests that there are."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SYMPTOMS: dict[str, dict[str, Any]] = tomllib.loads((HERE / "peers_symptoms.toml").read_text())
COUNT = 96
#: What symptoms may wait for.
LATER = {"autoscaling", "cluster", "lag metrics", "priorities", "run streams", "sentinel"}


@cache
def named_tests(path: Path) -> dict[str, str]:
    """Return the tests of a file by name, with what their docstrings say."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.parse(path.read_text()).body if isinstance(node, functions)]
    return {node.name: ast.get_docstring(node) or "" for node in found if node.name.startswith("test_")}


def own_tests() -> dict[str, str]:
    """Return the tests of all files of symptoms."""
    found: dict[str, str] = {}
    for path in HERE.glob("test_peers_symptoms_*.py"):
        found |= named_tests(path)
    return found


def test_every_symptom_is_accounted_for() -> None:
    """By tests, or by what has to be built first."""
    assert list(SYMPTOMS) == [str(number) for number in range(1, COUNT + 1)]
    for number, symptom in SYMPTOMS.items():
        assert symptom["threads"], number
        assert symptom.keys() <= {"threads", "tests", "later", "note"}, number
        assert ("tests" in symptom) != ("later" in symptom), number
        assert symptom.get("tests") or symptom["later"] in LATER, number


def test_every_test_that_is_named_exists() -> None:
    """Here or elsewhere; and every one here is named."""
    named = {test for symptom in SYMPTOMS.values() for test in symptom.get("tests", [])}
    elsewhere = [test.split("::") for test in named if "::" in test]
    assert [name for path, name in elsewhere if name not in named_tests(ROOT / path)] == []
    assert {test for test in named if "::" not in test} == own_tests().keys()


def test_every_test_says_where_its_symptom_was_told() -> None:
    """A thread of each symptom is in the docstring of a test of its own, and no docstring has one that is not listed."""
    own, listed = own_tests(), {thread for symptom in SYMPTOMS.values() for thread in symptom["threads"]}
    for number, symptom in SYMPTOMS.items():
        docs = " ".join(own[test] for test in symptom.get("tests", []) if test in own)
        assert not docs or any(thread in docs for thread in symptom["threads"]), number
    assert {thread for doc in own.values() for thread in re.findall(r"[\w./-]+#\d+", doc)} <= listed
