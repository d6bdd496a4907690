"""The names of records: in one module, and in the docs."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from hyperbus.event.routing import type_in
from hyperbus.transport import record_names
from hyperbus.transports.keys import record_key

ROOT = Path(__file__).parents[2]
SPELLS = ROOT / "hyperbus/transport/record_names.py"
#: What the docs call an argument.
WORDS = {
    "consumer": "<consumer name>",
    "group": "<group>",
    "stream": "<stream>",
    "name": "<name>",
    "event_type": "<type>",
}
#: What names are made of, or is no record's.
NO_RECORDS = {"sweep_lease", "losses_lease", "directory_member", "read_member", "notices_key"}


def _name(function: Callable[..., str]) -> str:
    return function(*(WORDS[argument] for argument in inspect.signature(function).parameters))


NAMES = {
    record_names.STREAM_DIRECTORY,
    record_names.GROUP_DIRECTORY,
    *(
        _name(function)
        for name, function in inspect.getmembers(record_names, inspect.isfunction)
        if name not in NO_RECORDS
    ),
}
#: What a name with something in it begins with.
HEADS = (*(name.partition(":")[0] + ":" for name in NAMES if ":" in name), "sweep:", "losses:")
#: What records are used by; the first argument is a name, or names.
METHODS = {
    *("put", "renew", "get", "delete", "compare_and_set"),
    *("add_members", "touch_members", "members", "remove_members"),
}


def _spelled(tree: ast.AST) -> Iterator[str]:
    """Find names that are written out: those with something in them, and plain ones where they are used or kept."""
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]) if text.startswith(HEADS):
                yield text
            case ast.Constant(value=str(text)) if text.startswith(HEADS) and " " not in text:
                yield text
            case ast.Assign(value=ast.Constant(value=text)) if text in NAMES:
                yield text
            case ast.Call(func=ast.Attribute(attr=method, value=owner), args=[name, *_]) if method in METHODS:
                if "records" in ast.unparse(owner):
                    yield from (part.value for part in ast.walk(name) if isinstance(part, ast.Constant))
            case ast.JoinedStr() if ast.unparse(node).endswith(":notices'"):
                yield ":notices"


def test_names_of_records_are_spelled_in_one_module() -> None:
    spelled = {
        (str(path.relative_to(ROOT)), text)
        for path in (ROOT / "hyperbus").rglob("*.py")
        if path != SPELLS
        for text in _spelled(ast.parse(path.read_text()))
    }
    assert spelled == set()


def test_a_spelled_name_is_found() -> None:
    code = """
DIRECTORY = "streams"
a = f"worker:{consumer}"
b = "lease:retention"
await self._records.members("groups", count=1)
await records.get([f"seen:{name}"])
await records.get(record_names.GROUP_DIRECTORY)
key = f"hyperbus:{prefix}:notices"
log("worker: it ended", streams=1)
"""
    found = list(_spelled(ast.parse(code)))
    assert set(found) == {"streams", "worker:", "lease:retention", "groups", "seen:", ":notices"}


def test_the_docs_have_every_record() -> None:
    docs = (ROOT / "docs/redis-keys.md").read_text()
    keys = {record_key("<prefix>", name) for name in NAMES} | {record_names.notices_key("<prefix>")}
    assert set(re.findall(r"^\| `(hyperbus:<prefix>:.+?)`", docs, re.MULTILINE)) == keys
    assert f"(field `{record_names.STREAM_BORN.decode()}`)" in docs
    (row,) = (line for line in docs.splitlines() if record_names.lease("<name>") in line)
    assert f"`{record_names.sweep_lease('<group>')}`" in row
    assert f"`{record_names.losses_lease('<group>')}`" in row
    assert f"`{record_names.RETENTION_LEASE}`" in row
    assert f"`{record_names.directory_member('<stream>', '<group>')}`" in docs


def test_a_member_of_the_directory_of_groups_is_read_back() -> None:
    assert record_names.read_member(record_names.directory_member("events:a.b", "g")) == ("events:a.b", "g")
    assert record_names.read_member("events:a") is None


def test_the_stream_of_notices_is_no_stream_of_a_type() -> None:
    assert record_names.notices_key("events") == "hyperbus:events:notices"
    assert type_in("events", record_names.notices_key("events")) is None
