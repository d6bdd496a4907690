"""README and the user documents: what they show runs, and what they name is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import DEADLINE, ROOT, environment

README = (ROOT / "README.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


#: What an example says on stderr, where its handlers fail on purpose.
FAILURES = {
    "02_retry_and_dead_letter": ["handler rejected an event", "the bank is away", "handler asks for another try"]
}


def run(program: Path, folder: Path) -> str:
    """Run a program with warnings as errors; return what it printed."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(program)], cwd=folder, env=environment(), capture_output=True, text=True,
        timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    failures = FAILURES.get(program.stem, [])
    assert all(words in ended.stderr for words in failures), ended.stderr
    assert failures or ended.stderr == ""
    return ended.stdout


def test_the_example_runs_as_it_stands(tmp_path):
    """It publishes, handles, and ends by itself."""
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert sum(bool(line.strip()) for line in example.splitlines()) <= 20
    program = tmp_path / "example.py"
    program.write_text(example)
    assert "wf-1: bill ERC20 on testnet" in run(program, tmp_path)


def test_the_readme_fits_two_screens():
    """Who has to scroll further does not read it."""
    assert len(README.splitlines()) <= 80
    assert max(map(len, README.splitlines())) <= 120


@pytest.mark.parametrize("program", EXAMPLES, ids=lambda program: program.stem)
def test_every_example_runs(program, tmp_path):
    """Without a server, with warnings as errors, and to its end."""
    assert run(program, tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_leads_somewhere(document):
    """Links to files of the project."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("name", ["architecture.md", "life-of-an-entry.md"])
def test_every_name_in_the_tour_exists(name):
    """Each `path/file.py` is a file, and each `file.py`: `function` is in it."""
    text = (ROOT / "docs" / name).read_text()
    for path, function in re.findall(r"`([\w/]+\.py)`(?:: `([\w.]+)`)?", text):
        file = ROOT / "hyperbus" / path if not path.startswith("consumers/") else ROOT / path
        assert file.is_file(), f"{name} names {path}"
        for part in function.split(".") if function else ():
            assert re.search(rf"\b(?:def|class) {part}\b", file.read_text()), f"{name}: no {part} in {path}"
