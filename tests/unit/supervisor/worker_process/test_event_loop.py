"""Which event loop a setting means."""

from __future__ import annotations

import asyncio
from importlib.machinery import ModuleSpec

import pytest

from hyperbus.errors import MissingExtraError
from hyperbus.supervisor.worker_process import event_loop as loops


@pytest.mark.parametrize(
    ("setting", "installed", "expected"),
    [
        ("auto", True, "uvloop"),
        ("auto", False, "asyncio"),
        ("asyncio", True, "asyncio"),
        ("uvloop", True, "uvloop"),
    ],
)
def test_auto_takes_uvloop_where_it_is(
    setting: loops.LoopName, installed: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody has to install it."""
    monkeypatch.setattr(loops, "find_spec", lambda name: ModuleSpec(name, None) if installed else None)
    assert loops.chosen_loop(setting) == expected


def test_uvloop_by_name_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to get it."""
    monkeypatch.setattr(loops, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"hyperbus\[uvloop\]"):
        loops.chosen_loop("uvloop")


def test_each_name_makes_its_loop() -> None:
    """A runner takes it."""
    pytest.importorskip("uvloop")
    for name in ("asyncio", "uvloop"):
        with asyncio.Runner(loop_factory=loops.loop_factory(name)) as runner:
            assert name in type(runner.get_loop()).__module__
