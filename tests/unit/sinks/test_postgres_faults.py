"""A connection that breaks under a statement is an error of ours, and is not used again."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from hyperbus.sinks.database import DatabaseError, Row
from hyperbus.sinks.database.postgres import PostgresDatabase

asyncpg = pytest.importorskip("asyncpg")
AT = datetime(2026, 1, 1, tzinfo=UTC)


class BreakingPool:
    """A pool, and its one connection, which is lost in the middle of a statement."""

    terminated = False

    @contextlib.asynccontextmanager
    async def acquire(self, **_options: Any) -> AsyncIterator[BreakingPool]:
        yield self

    async def execute(self, *_statement: Any) -> str:
        raise asyncpg.InternalClientError("another operation is in progress")

    def terminate(self) -> None:
        self.terminated = True


async def test_a_connection_lost_in_a_statement_is_a_database_error() -> None:
    """The bus tries again, on another connection."""
    database = PostgresDatabase("postgresql://localhost/d")
    pool = database._pool = BreakingPool()
    with pytest.raises(DatabaseError, match="in progress"):
        await database.write([Row("1", "a", None, AT, None, "{}", "1-0", "events:a", AT, "g")])
    assert pool.terminated
