"""Files, functions and constructors stay small; what is larger is named here, and a record says why."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "hyperbus"
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_PARAMETERS = 400, 50, 8
#: docs/decisions/0020: what users write may have many options.
ALLOWED = {("declaration/consumer.py", "consumer"), ("event/envelope.py", "Event.__init__")}
#: Who joins the parts of a worker, and who runs it.
JOINING = ("runtime/worker.py", "runtime/group_worker.py", "runtime/cursor_worker.py")


def _functions(tree: ast.AST, within: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{within}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{within}{node.name}", node
            yield from _functions(node, f"{within}{node.name}.")
        else:
            yield from _functions(node, within)


def _too_large(source: str) -> list[str]:
    """Return the names of functions that are too long, and of constructors that take too much."""
    found = []
    for name, function in _functions(ast.parse(source)):
        lines = (function.end_lineno or 0) - function.lineno + 1
        parameters = len(function.args.posonlyargs + function.args.args + function.args.kwonlyargs) - 1
        if lines > MOST_LINES_OF_A_FUNCTION or (function.name == "__init__" and parameters > MOST_PARAMETERS):
            found.append(name)
    return found


@pytest.mark.parametrize("path", sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")))
def test_a_file_and_what_is_in_it_is_small(path: str) -> None:
    source = (PACKAGE / path).read_text()
    assert source.count("\n") <= (200 if path in JOINING else MOST_LINES)
    assert [name for name in _too_large(source) if (path, name) not in ALLOWED] == []


def test_what_is_allowed_to_be_larger_is() -> None:
    """An exception that nothing needs any more goes."""
    assert all(name in _too_large((PACKAGE / path).read_text()) for path, name in ALLOWED)


def test_a_long_function_and_a_greedy_constructor_are_found() -> None:
    body = "\n".join("        pass" for _ in range(MOST_LINES_OF_A_FUNCTION))
    greedy = ", ".join(f"p{number}" for number in range(MOST_PARAMETERS + 1))
    source = f"class A:\n    def long(self):\n{body}\n    def __init__(self, {greedy}):\n        pass\n"
    assert _too_large(source) == ["A.long", "A.__init__"]
