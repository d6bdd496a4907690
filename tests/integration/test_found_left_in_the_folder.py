"""What hyperbus leaves in a folder lies in `.hyperbus`, is its owner's only, and travels in no archive."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from hyperbus.settings import Settings
from hyperbus.sinks.database import database_from_settings, open_database
from tests.commands import ROOT, environment, hyperbus


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_the_default_database_lies_in_the_bus_s_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is made where it is missing; nobody else may read it, nor what SQLite puts beside it."""
    monkeypatch.chdir(tmp_path)
    database = database_from_settings(Settings())
    await database.start()
    try:
        assert [path.name for path in tmp_path.iterdir()] == [".hyperbus"]
        files = list((tmp_path / ".hyperbus").iterdir())
        assert tmp_path / ".hyperbus" / "hyperbus.db" in files
        assert {mode(path) for path in files} == {0o600}
        assert mode(tmp_path / ".hyperbus") == 0o700
    finally:
        await database.stop()


async def test_a_database_elsewhere_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    """One that is there already keeps what its owner gave it."""
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    sqlite3.connect(old).close()
    old.touch(mode=0o644)
    old.chmod(0o640)
    for path in (new, old):
        database = open_database(f"sqlite:///{path}")
        await database.start()
        await database.stop()
    assert (mode(new), mode(old)) == (0o600, 0o640)


def test_a_new_project_keeps_databases_out_of_version_control(tmp_path: Path) -> None:
    """So does this one."""
    assert hyperbus("init", "shop", folder=tmp_path).code == 0
    for ignored in (tmp_path / "shop" / ".gitignore", ROOT / ".gitignore"):
        assert {".hyperbus/", "*.db"} <= set(ignored.read_text().split())


@pytest.mark.timeout(600)
def test_no_database_gets_into_an_archive_or_a_wheel(tmp_path: Path) -> None:
    """Wherever it lies."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):  # and no .gitignore, which would keep them out too
        shutil.copy(ROOT / name, source / name)
    for name in ("hyperbus", "consumers"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (".", "hyperbus", "hyperbus/cli/template/project", "consumers"):
        for name in ("hyperbus.db", "hyperbus.db-wal"):
            (source / folder / name).write_bytes(b"secret")
    ended = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(tmp_path / "dist"), str(source)], cwd=tmp_path,
        env=environment(), capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    (wheel,), (archive,) = (tmp_path / "dist").glob("*.whl"), (tmp_path / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as inside, tarfile.open(archive) as packed:
        names = inside.namelist() + packed.getnames()
    assert "hyperbus/cli/template/consumers/db_writer.py" in names
    assert [name for name in names if ".db" in Path(name).name] == []
