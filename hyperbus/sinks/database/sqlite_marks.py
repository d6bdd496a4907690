"""Marks in SQLite. Never begins, commits or rolls back a transaction itself."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence

from hyperbus.clock import Seconds
from hyperbus.sinks.database.marks import DONE_TABLE, Mark, failed, no_table, no_transaction

# Times are Unix seconds. A table without row ids is its own index.
SCHEMA = (
    f"""CREATE TABLE IF NOT EXISTS {DONE_TABLE} (
        consumer_group TEXT NOT NULL, event_id TEXT NOT NULL, done_at INTEGER NOT NULL,
        PRIMARY KEY (consumer_group, event_id)
    ) WITHOUT ROWID""",
    f"CREATE INDEX IF NOT EXISTS {DONE_TABLE}_done_at ON {DONE_TABLE} (consumer_group, done_at)",
)
_INSERT = f"INSERT OR IGNORE INTO {DONE_TABLE} VALUES (?, ?, ?)"  # noqa: S608 - the table name is a constant
_INSERT_ALL = f"INSERT OR IGNORE INTO {DONE_TABLE} SELECT ?, value, ? FROM json_each(?)"  # noqa: S608 - as above
#: Part of a statement about a row: its group has not done its event.
IS_NEW = f"NOT EXISTS (SELECT 1 FROM {DONE_TABLE} WHERE consumer_group = ?10 AND event_id = ?1)"  # noqa: S608 - as above
_FORGET = """
    DELETE FROM {table} WHERE (consumer_group, event_id) IN
        (SELECT consumer_group, event_id FROM {table} WHERE {which}done_at < ? LIMIT ?)
"""
_FORGET_OF_ALL = _FORGET.format(table=DONE_TABLE, which="")
_FORGET_OF_GROUP = _FORGET.format(table=DONE_TABLE, which="consumer_group = ? AND ")
#: `sqlite3.LEGACY_TRANSACTION_CONTROL`, which Python has since 3.12; before, it was the only way.
_LEGACY = -1


def mark(connection: sqlite3.Connection, what: Mark) -> bool:
    """Mark work as done in the caller's transaction; False if it was done before."""
    if not connection.in_transaction and not _begins_by_itself(connection):
        raise no_transaction('connection.execute("BEGIN IMMEDIATE") first, and commit after the work')
    with _errors():
        return connection.execute(_INSERT, (*what, _now())).rowcount == 1


def mark_all(connection: sqlite3.Connection, group: str, event_ids: Sequence[str]) -> int:
    """Mark many events in one statement; return how many were not done before."""
    ids = json.dumps(event_ids, ensure_ascii=False)
    return connection.execute(_INSERT_ALL, (group, _now(), ids)).rowcount


def prepare(connection: sqlite3.Connection) -> None:
    """Create the table where it is missing."""
    with _errors():
        for statement in SCHEMA:
            connection.execute(statement)


def forget(connection: sqlite3.Connection, older_than: Seconds, group: str | None, limit: int) -> int:
    """Delete old marks; return how many."""
    before = _now() - older_than
    with _errors():
        if group is None:
            return connection.execute(_FORGET_OF_ALL, (before, limit)).rowcount
        return connection.execute(_FORGET_OF_GROUP, (group, before, limit)).rowcount


def _now() -> int:
    return int(time.time())


def _begins_by_itself(connection: sqlite3.Connection) -> bool:
    """Python begins a transaction before our INSERT, unless the connection was made to leave that to its user."""
    return getattr(connection, "autocommit", _LEGACY) == _LEGACY and connection.isolation_level is not None


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if f"no such table: {DONE_TABLE}" in str(error):
            raise no_table() from error
        raise failed("SQLite", error) from error
