"""SQLite: one connection in one thread of its own. Several processes may write to one file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from hyperbus.clock import Seconds
from hyperbus.errors import HyperbusError
from hyperbus.settings import DATA_FOLDER
from hyperbus.sinks.database import sqlite_marks
from hyperbus.sinks.database.contract import TABLE, DatabaseError, Row
from hyperbus.sinks.database.marks import FORGET_AT_ONCE, SINK_FORGETS_EACH, SINK_REMEMBERS, group_of

#: How long to wait for another process that writes.
BUSY_TIMEOUT: Seconds = 10.0
_SCHEMA = (
    f"""CREATE TABLE IF NOT EXISTS {TABLE} (
        event_id TEXT NOT NULL PRIMARY KEY, type TEXT NOT NULL, workflow_id TEXT, timestamp TEXT NOT NULL,
        source_agent TEXT, data TEXT NOT NULL, entry_id TEXT NOT NULL, stream TEXT NOT NULL, written_at TEXT NOT NULL
    )""",
    f"CREATE INDEX IF NOT EXISTS {TABLE}_workflow_id ON {TABLE} (workflow_id)",
)
_INSERT = f"INSERT OR IGNORE INTO {TABLE} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - the table name is a constant
_INSERT_NEW = f"""
    INSERT OR IGNORE INTO {TABLE} SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 WHERE {sqlite_marks.IS_NEW}
"""
_T = TypeVar("_T")


class SqliteDatabase:
    """A SQLite file, which only its owner may read. Its folder has to exist, unless it is the bus's own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._written = SINK_FORGETS_EACH  # so that the first batch looks

    async def start(self) -> None:
        """Open the file, and create it and its table where they are missing."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hyperbus-sqlite")
        try:
            await self._run(self._open)
        except BaseException:
            await self.stop()
            raise

    async def write(self, rows: Sequence[Row]) -> int:
        """Write rows and their marks in one transaction; return how many rows are new."""
        return await self._run(lambda: self._insert(rows)) if rows else 0

    async def stop(self) -> None:
        """Close the file."""
        thread = self._thread
        if thread is None:
            return
        try:
            await self._run(self._close)
        finally:
            self._thread = None
            thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], _T]) -> _T:
        if self._thread is None:
            raise HyperbusError("the database is not open: await start() first")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise DatabaseError(
                f"SQLite cannot use {self._path}: {error}; check that its folder exists, can be written, "
                f"and has room, and that no other program holds the file locked"
            ) from error

    def _open(self) -> None:
        _make_file(self._path)
        self._connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None)
        _use_wal(self._connection)
        self._connection.execute("PRAGMA synchronous=FULL")
        with _transaction(self._connection):
            for statement in (*_SCHEMA, *sqlite_marks.SCHEMA):
                self._connection.execute(statement)

    def _insert(self, rows: Sequence[Row]) -> int:
        connection = self._connection
        if connection is None:
            raise HyperbusError("the database is not open: await start() first")
        group = group_of(rows)
        with _transaction(connection):
            new = _write_rows(connection, group, rows)
            self._written += len(rows)
            if self._written >= SINK_FORGETS_EACH:
                self._written = 0
                sqlite_marks.forget(connection, SINK_REMEMBERS, group, FORGET_AT_ONCE)
            return new

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _make_file(path: Path) -> None:
    """Make the file where it is missing, before SQLite does, which would let everybody read it."""
    try:
        if path.parent.name == DATA_FOLDER:
            path.parent.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError:
        return  # SQLite says what is wrong


class _transaction:  # noqa: N801 - it reads as a statement
    """Takes the write lock at once, so that two processes wait for each other and never fail half way."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                self._roll_back()
                raise
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging. The switch does not wait for other processes by itself."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)  # in a thread of its own
        else:
            return


def _write_rows(connection: sqlite3.Connection, group: str, rows: Sequence[Row]) -> int:
    """Write the marks and the rows of a transaction; only where some are not new, look at each."""
    event_ids = [row.event_id for row in rows]
    connection.execute("SAVEPOINT marks")
    if sqlite_marks.mark_all(connection, group, event_ids) == len(rows):
        return connection.executemany(_INSERT, [_values(row) for row in rows]).rowcount
    connection.execute("ROLLBACK TO marks")
    new = connection.executemany(_INSERT_NEW, [(*_values(row), group) for row in rows]).rowcount
    sqlite_marks.mark_all(connection, group, event_ids)
    return new


def _values(row: Row) -> tuple[str | None, ...]:
    return (
        *row[:3],
        row.timestamp.isoformat(timespec="microseconds"),
        *row[4:8],
        row.written_at.isoformat(timespec="microseconds"),
    )
