"""A worker process seen from outside: what happens when it cannot be started, or speaks badly."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hyperbus.clock import SystemClock
from hyperbus.settings import Settings
from hyperbus.supervisor.messages import REPORT_FD, Orders
from hyperbus.supervisor.process import WorkerProcess

ORDERS = Orders(modules=("m",), folder="/", settings=Settings(url="memory://"))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_process_that_cannot_be_started_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither end of its pipe stays behind."""
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    before = open_files()
    with pytest.raises(FileNotFoundError):
        await WorkerProcess.start(ORDERS, SystemClock(), environment=os.environ)
    assert open_files() == before


async def test_a_report_that_was_cut_off_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What came whole before and after it counts."""
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\nout = int(os.environ[{REPORT_FD!r}])\n"
        """os.write(out, b'{"type": "failed", "mess\\n')\n"""
        """os.write(out, b'{"type": "failed", "message": "whole", "exit_code": 5}\\n')\nsys.exit(5)\n"""
    )
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    process = await WorkerProcess.start(ORDERS, SystemClock(), environment=os.environ)
    assert await process.wait() == 5
    assert process.failed is not None
    assert (process.failed.message, process.failed.exit_code) == ("whole", 5)
    assert process.lived >= 0
