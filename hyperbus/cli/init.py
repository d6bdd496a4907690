"""`hyperbus init`: a new project out of the template that the package carries."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from hyperbus.errors import ConsumersNotFoundError, InvalidSettingError

_TEMPLATE = Path(__file__).parent / "template"
#: Files of a new project are kept under this suffix, so that nothing takes them for modules of ours.
_SUFFIX = ".template"


def consumers_folder() -> Path:
    """Return the folder that holds the ready-made package `consumers`: in the wheel, else in the source tree.

    Raises:
        ConsumersNotFoundError: it is in neither.
    """
    for folder in (_TEMPLATE, Path(__file__).parents[2]):
        if (folder / "consumers" / "__init__.py").is_file():
            return folder
    raise ConsumersNotFoundError("the ready-made consumers are missing from this installation; install hyperbus again")


def make_project(folder: Path) -> Iterator[str]:
    """Make a project in `folder`; yield lines that say what was made and what to do next.

    Raises:
        InvalidSettingError: the folder is not empty, or cannot be written.
    """
    consumers = consumers_folder() / "consumers"
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InvalidSettingError(f"{folder} is there already and not empty; name a new folder")
        for source in sorted((_TEMPLATE / "project").rglob(f"*{_SUFFIX}")):
            target = folder / source.relative_to(_TEMPLATE / "project").with_suffix("")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source.read_text().replace("@NAME@", _project_name(folder)))
            yield f"  {target}"
        shutil.copytree(consumers, folder / "consumers", ignore=shutil.ignore_patterns("__pycache__"))
        yield f"  {folder / 'consumers'}/"
    except OSError as error:
        raise InvalidSettingError(f"{folder} cannot be written: {error.strerror or error}") from error
    yield ""
    yield f"Next:  cd {folder} && python -m unittest && hyperbus run billing consumers"


def _project_name(folder: Path) -> str:
    name = "".join(c if c.isalnum() else "-" for c in folder.resolve().name.lower()).strip("-")
    return name or "events"
