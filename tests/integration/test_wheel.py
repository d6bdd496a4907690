"""The wheel, alone in a new environment, away from the source tree: what it holds, and that all of it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.commands import ROOT, environment

#: Building and installing fetch what they need from the package index.
pytestmark = pytest.mark.timeout(600)


def run(*words: str | Path, folder: Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder that is not the source tree; no path leads there."""
    variables = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        [str(word) for word in words], cwd=folder, env=variables, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built out of the source archive, as it would be published."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, folder=folder, timeout=300)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment that has the wheel, three extras, and nothing else."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place, with_pip=True)
    run(place / "bin" / "pip", "install", "--quiet", f"{wheel}[embedded,cli,websocket]", folder=place, timeout=300)
    return place / "bin"


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel):
    """No tests, no top-level `consumers`; the template and the ready-made consumers are inside, and so is py.typed."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"hyperbus", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    assert not [name for name in names if "test" in Path(name).name and ".template" not in name]
    assert not [name for name in names if "__pycache__" in name]
    inside = set(names)
    assert {f"hyperbus/cli/template/consumers/{path.name}" for path in (ROOT / "consumers").glob("*.py")} <= inside
    assert "hyperbus/cli/template/project/billing.py.template" in inside
    scripts = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hyperbus").rglob("*.lua")}
    assert scripts
    assert scripts <= inside


def test_the_wheel_tells_type_checkers_that_it_is_typed(wheel):
    """Without the marker a type checker ignores every annotation."""
    assert "hyperbus/py.typed" in zipfile.ZipFile(wheel).namelist()


def test_the_installed_command_knows_its_version(programs, tmp_path):
    """It comes from the metadata, and is the one in the wheel's name."""
    shown = run(programs / "hyperbus", "--version", folder=tmp_path).stdout
    where = run(programs / "python", "-c", "import hyperbus; print(hyperbus.__file__)", folder=tmp_path).stdout
    assert Path(where.strip()).is_relative_to(programs.parent)
    listed = run(programs / "pip", "list", "--format", "json", folder=tmp_path).stdout
    assert shown.split()[1] in {item["version"] for item in json.loads(listed) if item["name"] == "hyperbus"}


def test_a_new_project_passes_its_own_tests(programs, tmp_path):
    """`hyperbus init` makes a project whose tests run as they stand, and whose consumers can be loaded."""
    run(programs / "hyperbus", "init", "proj", folder=tmp_path)
    ended = run(programs / "python", "-W", "error", "-m", "unittest", folder=tmp_path / "proj")
    assert "Ran 1 test" in ended.stderr
    assert (tmp_path / "proj" / "consumers" / "db_writer.py").is_file()
    assert not list((tmp_path / "proj").rglob("*.template"))


def test_the_new_project_runs(programs, tmp_path):
    """Its `publish.py` and its consumers, on the embedded server, as its README says."""
    run(programs / "hyperbus", "init", "proj", folder=tmp_path)
    project = tmp_path / "proj"
    variables = {"HYPERBUS_HTTP_PORT": "0", "HYPERBUS_WEBSOCKET_PORT": "0"}
    clean = {name: value for name, value in environment(**variables).items() if name != "PYTHONPATH"}
    words = [programs / "hyperbus", "run", "billing", "consumers"]
    with subprocess.Popen(
        words, cwd=project, env=clean, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        try:
            run(programs / "python", "publish.py", folder=project)
            shown = run(programs / "hyperbus", "tail", "order.paid", "--history", "--count", "1", folder=project)
            assert json.loads(shown.stdout)["data"] == {"order": "A-1"}
        finally:
            running.terminate()
        assert running.wait(30) == 0
    assert os.path.getsize(project / ".hyperbus" / "hyperbus.db") > 0


def test_the_demo_runs_from_the_wheel(programs, tmp_path):
    """Five seconds, and both ends agree."""
    ended = run(programs / "hyperbus", "demo", "--seconds", "5", "--json", folder=tmp_path)
    assert json.loads(ended.stdout)["agrees"] is True


def test_the_readme_example_runs_from_the_wheel(programs, tmp_path):
    """As it stands in README.md, and to its end."""
    example = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "example.py").write_text(example)
    ended = run(programs / "python", "-W", "error", "example.py", folder=tmp_path)
    assert "wf-1: bill ERC20 on testnet" in ended.stdout
    assert ended.stderr == ""
