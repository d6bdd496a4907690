"""Switching a SQLite file to its write-ahead log survives another process that does the same."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from hyperbus.sinks.database import sqlite as sqlite_module


class LockedAtFirst:
    """A connection that answers as SQLite does while another process switches the same file."""

    def __init__(self, times: int, message: str = "database is locked") -> None:
        self.times = times
        self.message = message

    def execute(self, _statement: str) -> None:
        if self.times:
            self.times -= 1
            raise sqlite3.OperationalError(self.message)


def test_a_lock_is_waited_for() -> None:
    """SQLite itself does not wait here, so we do."""
    connection: Any = LockedAtFirst(3)
    sqlite_module._use_wal(connection)
    assert connection.times == 0


def test_a_lock_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the busy timeout it is an error."""
    monkeypatch.setattr(sqlite_module, "BUSY_TIMEOUT", 0.03)
    connection: Any = LockedAtFirst(10**9)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite_module._use_wal(connection)


def test_another_fault_is_an_error_at_once() -> None:
    """Waiting would not help."""
    connection: Any = LockedAtFirst(1, "disk I/O error")
    with pytest.raises(sqlite3.OperationalError, match="disk"):
        sqlite_module._use_wal(connection)
