"""The documents that name files and functions: what they name is there, and what is there is named."""

from __future__ import annotations

import re
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hyperbus"
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
LIFE = (ROOT / "docs/life-of-an-entry.md").read_text()
#: Packages each of whose modules has to be in a table of docs/architecture.md.
COMPLETE = ["publisher", "runtime", "transports", "supervisor"]


def _listed(document: str) -> list[str]:
    """Return the paths in the first column of the file tables; one of a folder ends with a slash."""
    tables = re.findall(r"^\| File \|.*\n\|[-|]+\n((?:\|.*\n)+)", document, re.MULTILINE)
    return [path for table in tables for row in table.splitlines() for path in re.findall("`(.+?)`", row.split("|")[1])]


def _modules(package: str) -> set[str]:
    paths = (path for path in (PACKAGE / package).rglob("*.py") if path.name != "__init__.py")
    return {path.relative_to(PACKAGE).as_posix() for path in paths}


def _missing(package: str, listed: list[str]) -> set[str]:
    folders = tuple(path for path in listed if path.endswith("/"))
    return {path for path in _modules(package) if path not in listed and not path.startswith(folders)}


def _named(document: str) -> list[tuple[str, str]]:
    """Return the functions and classes that are named with their files."""
    return re.findall(r"`([\w/]+\.py)`:\s+`([\w.]+)`", document)


def test_tables_list_no_file_that_is_gone_and_none_twice() -> None:
    listed = _listed(ARCHITECTURE)
    assert listed
    assert [path for path in listed if not (PACKAGE / path).exists()] == []
    assert sorted(set(listed)) == sorted(listed)


@pytest.mark.parametrize("package", COMPLETE)
def test_tables_list_every_module(package: str) -> None:
    assert _modules(package)
    assert _missing(package, _listed(ARCHITECTURE)) == set()


def test_a_row_may_be_of_several_files_or_of_a_folder() -> None:
    table = "| File | What it does |\n|---|---|\n| `transports/memory/`, `transports/connect.py` | See `transports/keys.py`. |\n"
    assert _listed(table) == ["transports/memory/", "transports/connect.py"]
    missing = _missing("transports", _listed(table))
    assert "transports/keys.py" in missing
    assert not any(path.startswith("transports/memory/") or path == "transports/connect.py" for path in missing)


@pytest.mark.parametrize("document", [ARCHITECTURE, LIFE], ids=["architecture", "life of an entry"])
def test_documents_name_no_file_that_is_gone(document: str) -> None:
    paths = re.findall(r"`([\w/]+\.py)`", document)
    assert paths
    assert [path for path in paths if not (PACKAGE / path).exists()] == []


@pytest.mark.parametrize(("path", "name"), dict.fromkeys(_named(LIFE)))
def test_what_does_a_step_is_where_the_document_says(path: str, name: str) -> None:
    """Made there, and not imported from elsewhere."""
    module = import_module("hyperbus." + path.removesuffix(".py").replace("/", "."))
    assert vars(module)[name.partition(".")[0]].__module__ == module.__name__
    assert callable(reduce(getattr, name.split("."), module))


def test_the_document_names_what_does_a_step() -> None:
    assert len(_named(LIFE)) >= 10
