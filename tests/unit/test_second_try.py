from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT

#: How many tests may be forgiven. Whoever wants one more has to show that its failures are no bugs.
MOST = 6

TESTS = """
from pathlib import Path

import pytest

tries = Path(__file__).with_name("tries")

@pytest.fixture
def a_fixture():
    tries.write_text(tries.read_text() + "f" if tries.exists() else "f")

@pytest.mark.second_try("chance")
def test_it(a_fixture):
    {body}

def test_neighbour():
    pass
"""


def run(folder: Path, body: str, *options: str) -> str:
    """Run a marked test, and return what pytest wrote."""
    (folder / "test_it.py").write_text(TESTS.format(body=body))
    plugins = ("-p", "tests.second_try", "-p", "no:cacheprovider")
    words = [sys.executable, "-m", "pytest", "-q", *plugins, *options, str(folder)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50).stdout


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_a_second_try_that_goes_well_passes_and_is_named(tmp_path: Path, options: tuple[str, ...]) -> None:
    """With fixtures of its own."""
    said = run(tmp_path, "assert tries.read_text() == 'ff', 'it was the first'", *options)
    assert "2 passed" in said
    assert "failed," not in said.splitlines()[-1]
    assert re.search(r"^FLAKY .*test_it.py::test_it: .*it was the first", said, re.MULTILINE)
    assert (tmp_path / "tries").read_text() == "ff"


def test_what_fails_twice_has_failed(tmp_path: Path) -> None:
    """It is not tried a third time."""
    said = run(tmp_path, "raise ValueError")
    assert "1 failed, 1 passed" in said
    assert (tmp_path / "tries").read_text() == "ff"


def test_what_passes_is_not_named(tmp_path: Path) -> None:
    """Nor tried again."""
    said = run(tmp_path, "pass")
    assert "2 passed" in said
    assert "flaky" not in said
    assert (tmp_path / "tries").read_text() == "f"


def test_a_second_try_has_a_timeout_too(tmp_path: Path) -> None:
    """The first one's does not count for both."""
    said = run(tmp_path, "import time; time.sleep(30)", "-o", "timeout=1", "-o", "timeout_func_only=true")
    assert "1 failed, 1 passed" in said


def test_few_tests_are_forgiven() -> None:
    """Each mark gives its reason."""
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py") if path.name != Path(__file__).name]
    marks = [mark for text in texts for mark in re.findall(r"mark\.second_try\b\(?(.?)", text)]
    assert 0 < len(marks) <= MOST
    assert set(marks) == {'"'}
