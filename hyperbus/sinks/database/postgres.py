"""PostgreSQL through asyncpg: a batch is one statement."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from hyperbus.clock import Seconds
from hyperbus.errors import HyperbusError, MissingExtraError
from hyperbus.sinks.database.contract import TABLE, DatabaseError, Row
from hyperbus.sinks.database.marks import DONE_TABLE, FORGET_AT_ONCE, SINK_FORGETS_EACH, SINK_REMEMBERS, group_of
from hyperbus.sinks.database.postgres_marks import SCHEMA_LOCK, forget, prepare

CONNECT_TIMEOUT: Seconds = 10.0
COMMAND_TIMEOUT: Seconds = 30.0
CLOSE_TIMEOUT: Seconds = 5.0
_SCHEMA = f"""
    CREATE TABLE IF NOT EXISTS {TABLE} (
        event_id TEXT NOT NULL PRIMARY KEY, type TEXT NOT NULL, workflow_id TEXT, timestamp TIMESTAMPTZ NOT NULL,
        source_agent TEXT, data JSON NOT NULL, entry_id TEXT NOT NULL, stream TEXT NOT NULL,
        written_at TIMESTAMPTZ NOT NULL
    );
    CREATE INDEX IF NOT EXISTS {TABLE}_workflow_id ON {TABLE} (workflow_id);
"""
# JSON and not JSONB, which refuses some characters that JSON allows.
# Marks, and the rows of those that are new. Two processes that write the same events give them in the same order, so
# that they wait for each other and do not deadlock.
_INSERT = f"""
    WITH marked AS (
        INSERT INTO {DONE_TABLE} (consumer_group, event_id) SELECT $10, id FROM unnest($1::text[]) AS ids (id)
        ON CONFLICT DO NOTHING RETURNING event_id
    )
    INSERT INTO {TABLE}
        (event_id, type, workflow_id, timestamp, source_agent, data, entry_id, stream, written_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::json[],
                         $7::text[], $8::text[], $9::timestamptz[]) AS given (event_id)
    WHERE given.event_id IN (SELECT event_id FROM marked)
    ORDER BY given.event_id
"""  # noqa: S608 - the table names are constants
# Takes rows without a mark of this group too: written by another group, or before there were marks. It is slower.
_INSERT_BESIDE_ROWS = _INSERT + "ON CONFLICT (event_id) DO NOTHING"


class PostgresDatabase:
    """A PostgreSQL database; needs the extra `postgres`."""

    def __init__(self, url: str) -> None:
        try:
            import asyncpg
        except ImportError as error:
            raise MissingExtraError("PostgreSQL needs asyncpg: pip install 'hyperbus[postgres]'") from error
        self._asyncpg: Any = asyncpg
        self._failures = (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,  # what a connection raises that is just being lost
            OSError,
            TimeoutError,
        )
        self._url = url
        self._pool: Any = None
        self._insert = _INSERT
        self._written = SINK_FORGETS_EACH  # so that the first batch looks

    async def start(self) -> None:
        """Connect, and create the table where it is missing."""
        async with self._errors():
            pool = await self._asyncpg.create_pool(
                self._url, min_size=1, max_size=2, timeout=CONNECT_TIMEOUT, command_timeout=COMMAND_TIMEOUT
            )
        self._pool = pool
        try:
            async with self._errors(), pool.acquire(timeout=CONNECT_TIMEOUT) as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)
                await connection.execute(_SCHEMA)
                await prepare(connection)
        except BaseException:
            await self.stop()
            raise

    async def write(self, rows: Sequence[Row]) -> int:
        """Write rows and their marks in one statement; return how many rows are new."""
        if not rows:
            return 0
        if self._pool is None:
            raise HyperbusError("the database is not open: await start() first")
        group = group_of(rows)
        given = {row.event_id: row for row in reversed(rows)}  # each once, and the first of equals
        columns = [list(column) for column in zip(*(row[:9] for _, row in sorted(given.items())), strict=True)]
        async with self._errors(), self._pool.acquire(timeout=CONNECT_TIMEOUT) as connection:
            try:
                answer = await self._write_rows(connection, *columns, group)
                await self._forget_some(connection, group, len(rows))
            except self._asyncpg.InternalClientError:
                connection.terminate()  # it broke in mid-air, and the pool must not hand it out again
                raise
        return int(answer.rpartition(" ")[2])

    async def _write_rows(self, connection: Any, *values: Any) -> str:
        try:
            answer: str = await connection.execute(self._insert, *values)
        except self._asyncpg.UniqueViolationError:
            self._insert = _INSERT_BESIDE_ROWS  # from now on: each violation is a line in the server's log
            answer = await connection.execute(self._insert, *values)
        return answer

    async def _forget_some(self, connection: Any, group: str, written: int) -> None:
        self._written += written
        if self._written >= SINK_FORGETS_EACH:
            self._written = 0
            await forget(connection, SINK_REMEMBERS, group, FORGET_AT_ONCE)

    async def stop(self) -> None:
        """Close the connections."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await pool.close()
        except self._failures:
            pool.terminate()

    @contextlib.asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        try:
            yield
        except self._failures as error:
            parts = urlsplit(self._url)
            raise DatabaseError(
                f"PostgreSQL at {parts.hostname or 'its socket'}:{parts.port or 5432}{parts.path}: "
                f"{error or type(error).__name__}; check that it runs, database_url, and the user's rights"
            ) from error
