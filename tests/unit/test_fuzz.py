from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.fuzz import example_line

PROPERTY = """
from hypothesis import given
from hypothesis import strategies as st

@given(number=st.integers())
def test_a_number_is_small(number):
    assert number < {limit}
"""

PROFILES = "from tests.examples import register_profiles\n\nregister_profiles()\n"


def search(folder: Path, limit: str) -> subprocess.CompletedProcess[str]:
    """Let one round look for a number that is not below the limit."""
    (folder / "test_numbers.py").write_text(PROPERTY.format(limit=limit))
    (folder / "conftest.py").write_text(PROFILES)
    options = ("--minutes", "0", "--seed", "7", "--workers", "1", str(folder))
    words = [sys.executable, "-m", "tests.fuzz", *options]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)


def test_what_breaks_a_property_is_told_with_how_to_keep_and_how_to_repeat_it(tmp_path: Path) -> None:
    """The exit code tells, too."""
    done = search(tmp_path, "1000")
    assert done.returncode == 1
    assert "@example(number=1000)" in done.stdout
    assert "--hypothesis-seed 7" in done.stdout


def test_a_search_that_finds_nothing_ends_well(tmp_path: Path) -> None:
    """After one round at least, which it names."""
    done = search(tmp_path, "float('inf')")
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("round 1, seed 7")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("    number=1,", "@example(number=1)"),
        ("    run=<function at 0x1>,\n    number=1,\n    text='a',", "@example(number=1, text='a')"),
        (
            "    ops=[(\n         'a',\n         0,  # or any other generated value\n    )],",
            "@example(ops=[( 'a', 0, )])",
        ),
        ("    run=<function at 0x1>,\n    data=data(...),", None),
    ],
)
def test_an_example_is_written_without_fixtures_and_comments(arguments: str, line: str | None) -> None:
    """What cannot be written down is no example."""
    assert example_line(f"Failing test case: test_it(\n{arguments}\n)\nDraw 1: 2", {"run"}) == line
