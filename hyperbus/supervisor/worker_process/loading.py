"""From module names to the consumers that they declare."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

from hyperbus.declaration.consumer import ATTRIBUTE, Declaration, check_declarations, declaration_of, distinct_consumers
from hyperbus.error_text import describe, place_of
from hyperbus.errors import ConsumersNotFoundError, HyperbusError


def load_consumers(modules: Sequence[str], *, folder: Path | None = None) -> list[object]:
    """Import modules and return the consumers that they declare; a package means its submodules too.

    `folder` (by default the working directory) is put on the path. Consumers that a module only imported do not
    count.

    Raises:
        ConsumersNotFoundError: a module is not there, or they declare no consumer.
        DeclarationError: a declaration cannot work, or two cannot run beside each other.
    """
    place = str((folder or Path.cwd()).resolve())
    if place not in sys.path:
        sys.path.insert(0, place)
    found: list[object] = []
    for name in modules:
        for module in _import(name):
            found.extend(item for item in _declared_in(module) if all(item is not other for other in found))
    if not found:
        raise ConsumersNotFoundError(
            f"{', '.join(modules) or 'nothing'} declares no consumer; decorate a function or class with @consumer(...)"
        )
    found = distinct_consumers(found)
    check_declarations([declaration_of(consumer) for consumer in found])
    return found


def load_module(name: str) -> ModuleType:
    """Import a module by its name.

    Raises:
        ConsumersNotFoundError: there is no such module, or the name cannot be one's.
        Exception: whatever its code raised; `import_failure` puts that into words.
    """
    if name.endswith(".py") or "/" in name:
        raise ConsumersNotFoundError(f"{name!r} is a path; give the module's name, as in `import`: {_as_module(name)}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConsumersNotFoundError(
            f"{name!r} cannot be a module; give its name, as in `import`: my_project.consumers"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConsumersNotFoundError(
                f"there is no module {name!r} here ({Path.cwd()}) or among the installed packages"
            ) from error
        raise


def _import(name: str) -> Iterator[ModuleType]:
    module = load_module(name)
    yield module
    for info in pkgutil.walk_packages(getattr(module, "__path__", []), f"{name}.", onerror=lambda _name: None):
        if info.name.rpartition(".")[2] != "__main__":  # importing it would run the program
            yield load_module(info.name)


def import_failure(error: BaseException) -> HyperbusError:
    """Return the error that a failed import stands for: what was raised, and where in the user's code."""
    place = place_of(error)
    return HyperbusError(f"importing failed: {describe(error)}{f' ({place})' if place else ''}")


def _declared_in(module: ModuleType) -> Iterable[object]:
    for value in vars(module).values():
        if _is_declared_in(module, value):
            yield value
        if issubclass(type(value), type) and value.__module__ == module.__name__:
            static = [member.__func__ for member in vars(value).values() if isinstance(member, staticmethod)]
            yield from (function for function in static if _is_declared_in(module, function))


def _is_declared_in(module: ModuleType, value: object) -> bool:
    try:
        declaration = vars(value).get(ATTRIBUTE)
    except Exception:  # noqa: BLE001 - a module holds anything: proxies that may not be asked yet, and what has no vars
        return False
    return type(declaration) is Declaration and declaration.module == module.__name__


def _as_module(path: str) -> str:
    return path.removesuffix(".py").strip("./").replace("/", ".")
