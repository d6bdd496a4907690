"""Marks in PostgreSQL, through a connection of asyncpg. Never commits or rolls back the caller's transaction."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from hyperbus.clock import Seconds
from hyperbus.sinks.database.marks import DONE_TABLE, Mark, failed, no_table, no_transaction

#: Any number, the same in every process: who creates tables holds this lock.
SCHEMA_LOCK = 0x68797065
_SCHEMA = f"""
    CREATE TABLE IF NOT EXISTS {DONE_TABLE} (
        consumer_group TEXT NOT NULL, event_id TEXT NOT NULL, done_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        PRIMARY KEY (consumer_group, event_id)
    );
    CREATE INDEX IF NOT EXISTS {DONE_TABLE}_done_at ON {DONE_TABLE} (consumer_group, done_at);
"""
_INSERT = f"""
    INSERT INTO {DONE_TABLE} (consumer_group, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING
"""  # noqa: S608 - the table name is a constant
# Two that forget at once share the work, and do not wait for each other.
_FORGET = """
    DELETE FROM {table} WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM {table} WHERE {which}done_at < now() - make_interval(secs => $1)
        LIMIT $2 FOR UPDATE SKIP LOCKED
    ))
"""
_FORGET_OF_ALL = _FORGET.format(table=DONE_TABLE, which="")
_FORGET_OF_GROUP = _FORGET.format(table=DONE_TABLE, which="consumer_group = $3 AND ")


class PostgresConnection(Protocol):
    """What of an `asyncpg.Connection`, or of one that a pool lends, is used here."""

    def is_in_transaction(self) -> bool:
        """Tell whether a transaction has begun."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """Return a transaction, or a savepoint inside one."""
        ...

    async def execute(self, query: str, *args: Any) -> str:
        """Run a statement; return what the server calls its outcome."""
        ...

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Run a query; return the first column of its first row."""
        ...


async def mark(connection: PostgresConnection, what: Mark) -> bool:
    """Mark work as done in the caller's transaction; False if it was done before."""
    if not connection.is_in_transaction():
        raise no_transaction("do both inside `async with connection.transaction():`")
    async with _errors():
        return _count(await connection.execute(_INSERT, *what)) == 1


async def prepare(connection: PostgresConnection) -> None:
    """Create the table where it is missing."""
    async with _errors():
        # Asked first: CREATE ... IF NOT EXISTS wants rights that a worker may lack once the table is there.
        if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", DONE_TABLE):
            return
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)
            await connection.execute(_SCHEMA)


async def forget(connection: PostgresConnection, older_than: Seconds, group: str | None, limit: int) -> int:
    """Delete old marks; return how many."""
    async with _errors():
        if group is None:
            return _count(await connection.execute(_FORGET_OF_ALL, older_than, limit))
        return _count(await connection.execute(_FORGET_OF_GROUP, older_than, limit, group))


def _count(answer: str) -> int:
    return int(answer.rpartition(" ")[2])


@contextlib.asynccontextmanager
async def _errors() -> AsyncIterator[None]:
    import asyncpg

    try:
        yield
    except asyncpg.UndefinedTableError as error:
        raise no_table() from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        raise failed("PostgreSQL", error) from error
