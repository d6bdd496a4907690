"""From module names to consumers: what is found, what does not count, what is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbus.declaration.consumer import declaration_of
from hyperbus.errors import ConsumersNotFoundError, DeclarationError
from hyperbus.supervisor.worker_process.loading import load_consumers
from tests.unit.runtime.running import unique

CONSUMER = """
from hyperbus import consumer, Event

@consumer(types=["{type}"])
async def {name}(event: Event) -> None: ...
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder to write modules into; what was imported from it is forgotten afterwards."""
    path, modules = sys.path.copy(), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def names(modules: list[str], folder: Path) -> list[str]:
    return [declaration_of(found).name for found in load_consumers(modules, folder=folder)]


def test_a_module_in_the_folder_is_found_with_what_it_declares(project: Path) -> None:
    """Functions and classes, in their order; each once, however often its module is named."""
    module = unique("m")
    (project / f"{module}.py").write_text(
        CONSUMER.format(type="a", name="first")
        + """
from hyperbus import Consumer

@consumer(types=["b"])
class Second(Consumer):
    async def handle(self, event: Event) -> None: ...

again = Second
"""
    )
    assert names([module, module], project) == ["first", "second"]


def test_a_package_means_its_submodules_but_not_its_program(project: Path) -> None:
    """Nested ones too; `__main__` is not run."""
    package = unique("p")
    inner = project / package / "inner"
    inner.mkdir(parents=True)
    (project / package / "__init__.py").write_text("")
    (project / package / "__main__.py").write_text("raise SystemExit('the program ran')")
    (project / package / "one.py").write_text(CONSUMER.format(type="a", name="one"))
    (inner / "__init__.py").write_text("")
    (inner / "two.py").write_text(CONSUMER.format(type="b", name="two"))
    assert sorted(names([package], project)) == ["one", "two"]


def test_what_a_module_only_imported_does_not_count(project: Path) -> None:
    """Nor do things at module level that merely look like something declared."""
    declares, imports = unique("m"), unique("m")
    (project / f"{declares}.py").write_text(CONSUMER.format(type="a", name="declared"))
    (project / f"{imports}.py").write_text(
        f"from {declares} import declared\n"
        "from hyperbus import EventData\n"
        "class Sample(EventData, type='loading_test.sample'):\n    n: int = 0\n"
        "class Slotted:\n    __slots__ = ()\n"
        "sample, slotted = Sample(), Slotted()\n"
    )
    with pytest.raises(ConsumersNotFoundError, match="declares no consumer"):
        load_consumers([imports], folder=project)
    assert names([imports, declares], project) == ["declared"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module_anywhere", "there is no module"),
        ("json.no_such_module", "there is no module"),
        ("consumers/billing.py", "consumers.billing"),
        ("./billing.py", ": billing"),
        (".", "cannot be a module"),
        ("", "cannot be a module"),
        ("my-consumers", "cannot be a module"),
    ],
)
def test_a_name_that_is_no_module_is_refused_with_what_to_write(name: str, says: str, project: Path) -> None:
    """A path, a typo, a dash."""
    with pytest.raises(ConsumersNotFoundError, match=says):
        load_consumers([name], folder=project)


def test_nothing_named_is_nothing_found(project: Path) -> None:
    """No module, no consumer."""
    with pytest.raises(ConsumersNotFoundError, match="nothing declares"):
        load_consumers([], folder=project)


def test_a_module_that_a_module_misses_is_its_own_error(project: Path) -> None:
    """It is not mistaken for the module that was named."""
    module = unique("m")
    (project / f"{module}.py").write_text("import no_such_dependency")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        load_consumers([module], folder=project)


def test_declarations_that_overlap_are_refused(project: Path) -> None:
    """One group twice, with the same types, in two modules."""
    modules = [unique("m"), unique("m")]
    for module in modules:
        (project / f"{module}.py").write_text(CONSUMER.format(type="a", name="same"))
    with pytest.raises(DeclarationError, match="overlapping"):
        load_consumers(modules, folder=project)


def test_the_working_directory_is_on_the_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `python -m` has it."""
    monkeypatch.chdir(project)
    module = unique("m")
    (project / f"{module}.py").write_text(CONSUMER.format(type="a", name="here"))
    assert [declaration_of(found).name for found in load_consumers([module])] == ["here"]
