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

CONNECT_TIMEOUT: Seconds = 10.0
COMMAND_TIMEOUT: Seconds = 30.0
CLOSE_TIMEOUT: Seconds = 5.0
#: Any number, the same in every process: who creates the table holds this lock.
_SCHEMA_LOCK = 0x68797065
_SCHEMA = f"""
    CREATE TABLE IF NOT EXISTS {TABLE} (
        event_id TEXT NOT NULL PRIMARY KEY, type TEXT NOT NULL, workflow_id TEXT, timestamp TIMESTAMPTZ NOT NULL,
        source_agent TEXT, data JSON NOT NULL, entry_id TEXT NOT NULL, stream TEXT NOT NULL,
        written_at TIMESTAMPTZ NOT NULL
    );
    CREATE INDEX IF NOT EXISTS {TABLE}_workflow_id ON {TABLE} (workflow_id);
"""
# JSON and not JSONB, which refuses some characters that JSON allows.
_INSERT = f"""
    INSERT INTO {TABLE}
        (event_id, type, workflow_id, timestamp, source_agent, data, entry_id, stream, written_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::json[],
                         $7::text[], $8::text[], $9::timestamptz[])
    ON CONFLICT (event_id) DO NOTHING
"""  # noqa: S608 - the table name is a constant


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

    async def start(self) -> None:
        """Connect, and create the table where it is missing."""
        async with self._errors():
            pool = await self._asyncpg.create_pool(
                self._url, min_size=1, max_size=2, timeout=CONNECT_TIMEOUT, command_timeout=COMMAND_TIMEOUT
            )
        self._pool = pool
        try:
            async with self._errors(), pool.acquire(timeout=CONNECT_TIMEOUT) as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
                await connection.execute(_SCHEMA)
        except BaseException:
            await self.stop()
            raise

    async def write(self, rows: Sequence[Row]) -> int:
        """Write rows in one statement; return how many are new."""
        if not rows:
            return 0
        if self._pool is None:
            raise HyperbusError("the database is not open: await start() first")
        # In one order, so that two processes that write the same events wait for each other and do not deadlock.
        columns = [list(column) for column in zip(*sorted(rows, key=lambda row: row.event_id), strict=True)]
        async with self._errors(), self._pool.acquire(timeout=CONNECT_TIMEOUT) as connection:
            try:
                answer: str = await connection.execute(_INSERT, *columns)
            except self._asyncpg.InternalClientError:
                connection.terminate()  # it broke in mid-air, and the pool must not hand it out again
                raise
        return int(answer.rpartition(" ")[2])

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
