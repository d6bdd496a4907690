"""SQLite and a real PostgreSQL store each event once, whoever writes at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from hyperbus.errors import HyperbusError
from hyperbus.sinks.database import Database, DatabaseError, Row, open_database
from hyperbus.sinks.database import sqlite as sqlite_module
from hyperbus.sinks.database.marks import SINK_FORGETS_EACH, SINK_REMEMBERS

AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def row(event_id: str, **more: Any) -> Row:
    fields: dict[str, Any] = {
        "event_id": event_id,
        "type": "workflow.started",
        "workflow_id": "wf-1",
        "timestamp": AT,
        "source_agent": None,
        "data": '{"x":1,"nul":"\\u0000"}',
        "entry_id": "1-0",
        "stream": "events:workflow.started",
        "written_at": AT,
        "group": "db_writers",
    }
    return Row(**(fields | more))


@pytest.fixture(params=["sqlite", "postgres"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/events.db"
        return
    import asyncpg

    server: str = request.getfixturevalue("postgres")
    name = f"test_{uuid4().hex}"
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    yield server.replace("/postgres?", f"/{name}?", 1)


async def run(url: str, statement: str) -> list[tuple[Any, ...]]:
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        found = connection.execute(statement).fetchall()
        connection.close()
        return found
    import asyncpg

    other = await asyncpg.connect(url)
    records = await other.fetch(statement)
    await other.close()
    return [tuple(record) for record in records]


async def rows_in(url: str) -> list[tuple[Any, ...]]:
    return await run(
        url, "SELECT event_id, type, workflow_id, source_agent, data, entry_id, stream FROM workflow_updates ORDER BY 1"
    )


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = open_database(url)
    await database.start()
    yield database
    await database.stop()


async def test_rows_are_stored_as_they_are(database: Database, url: str) -> None:
    """Every column, JSON that only a strict database minds, and nothing where there is nothing."""
    assert await database.write([row("1"), row("2", workflow_id=None, source_agent="é")]) == 2
    assert await rows_in(url) == [
        ("1", "workflow.started", "wf-1", None, '{"x":1,"nul":"\\u0000"}', "1-0", "events:workflow.started"),
        ("2", "workflow.started", None, "é", '{"x":1,"nul":"\\u0000"}', "1-0", "events:workflow.started"),
    ]


async def test_an_event_that_comes_again_changes_nothing(database: Database, url: str) -> None:
    """In a later batch or twice in one; only new rows are counted, and the first stays."""
    assert await database.write([row("1"), row("2")]) == 2
    assert await database.write([row("2", entry_id="9-0"), row("3"), row("3")]) == 1
    assert await database.write([row("1")]) == 0
    assert await database.write([]) == 0
    assert [(found[0], found[5]) for found in await rows_in(url)] == [("1", "1-0"), ("2", "1-0"), ("3", "1-0")]


async def test_a_table_that_is_there_is_kept(database: Database, url: str) -> None:
    """A restart finds what was written before."""
    await database.write([row("1")])
    again = open_database(url)
    await again.start()
    assert await again.write([row("1"), row("2")]) == 1
    await again.stop()
    await again.stop()


async def test_a_failed_batch_leaves_nothing_and_can_be_written_again(database: Database, url: str) -> None:
    """A fault surfaces as an error; the database goes on."""
    with pytest.raises(DatabaseError):
        await database.write([row("1"), row("2", data=["no text"] if url.startswith("sqlite") else "no JSON")])
    assert await rows_in(url) == []
    assert await database.write([row("1"), row("2")]) == 2


async def test_writing_before_the_start_is_an_error(url: str) -> None:
    """It says what is missing."""
    with pytest.raises(HyperbusError, match="start"):
        await open_database(url).write([row("1")])


async def test_what_a_group_has_done_does_not_come_back(database: Database, url: str) -> None:
    """Neither from the bus nor when its row was deleted since; ids are those of the event, however odd."""
    odd = "é\U0001f600\x01\"'\\"
    assert await database.write([row("1"), row("2"), row(odd)]) == 3
    await run(url, "DELETE FROM workflow_updates WHERE event_id = '1'")
    assert await database.write([row("1"), row("3"), row("3"), row(odd)]) == 1
    assert [found[0] for found in await rows_in(url)] == ["2", "3", odd]
    marks = await run(url, "SELECT consumer_group, event_id FROM hyperbus_done ORDER BY 2")
    assert marks == [("db_writers", event_id) for event_id in ("1", "2", "3", odd)]


async def test_rows_without_a_mark_of_their_group_stay_as_they_are(database: Database, url: str) -> None:
    """Written by another group, before there were marks, or their marks forgotten."""
    assert await database.write([row("1"), row("2")]) == 2
    await run(url, "DELETE FROM hyperbus_done")
    assert await database.write([row("1", data="[]"), row("3")]) == 1
    assert await database.write([row("3", group="others", data="[]"), row("4", group="others")]) == 1
    assert await database.write([row("4", data="[]"), row("5")]) == 1
    assert [found[0] for found in await rows_in(url)] == ["1", "2", "3", "4", "5"]
    assert all(found[4] != "[]" for found in await rows_in(url))
    with pytest.raises(HyperbusError, match="2 groups"):
        await database.write([row("6"), row("7", group="others")])


async def test_a_row_that_fails_takes_the_marks_with_it(database: Database, url: str) -> None:
    """Marks without rows would be events lost."""
    bad: Any = ["no text"] if url.startswith("sqlite") else "no JSON"
    for events in ([row("1"), row("2", data=bad)], [row("0"), row("1"), row("2", data=bad)]):
        with pytest.raises(DatabaseError):
            await database.write(events)
        assert await run(url, "SELECT event_id FROM hyperbus_done WHERE event_id <> '0'") == []
        assert await database.write([row("0")]) in {0, 1}


async def test_old_marks_are_forgotten(database: Database, url: str) -> None:
    """They do not pile up for ever; what other groups have done is not this one's to forget."""
    await database.write([row("1"), row("2")])
    await database.write([row("3", group="others")])
    age = int(SINK_REMEMBERS) + 60
    older = f"done_at - {age}" if url.startswith("sqlite") else f"done_at - interval '{age} s'"
    await run(url, f"UPDATE hyperbus_done SET done_at = {older} WHERE event_id <> '2'")
    await database.write([row(f"new-{n}") for n in range(SINK_FORGETS_EACH)])
    found = await run(url, "SELECT event_id FROM hyperbus_done WHERE event_id NOT LIKE 'new-%' ORDER BY 1")
    assert found == [("2",), ("3",)]
    assert await database.write([row("1")]) == 0


_WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from hyperbus.sinks.database import Row, open_database
async def main(url, name):
    database = open_database(url)
    sys.stdin.readline()
    await database.start()
    new = 0
    for batch in range(20):
        ids = [f"shared-{batch * 50 + n}" for n in range(50)] + [f"{name}-{batch * 50 + n}" for n in range(50)]
        ids = ids if name == "a" else ids[::-1]
        at = datetime.now(UTC)
        new += await database.write([Row(i, "t", "wf", at, None, "{}", "1-0", "events:t", at, "g") for i in ids])
    await database.stop()
    print(new)
asyncio.run(main(*sys.argv[1:]))
"""


async def test_two_processes_write_at_the_same_time(url: str) -> None:
    """They race for the table and for the same events; each event is stored once and counted once."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    answers = [await asyncio.to_thread(writer.communicate, None, 45) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sum(int(out) for out, _ in answers) == len(await rows_in(url)) == 3_000


async def test_sqlite_keeps_what_it_says_it_wrote(tmp_path: Path) -> None:
    """Write-ahead log, full synchronisation, an index for workflows."""
    database: Any = open_database(f"sqlite:///{tmp_path}/events.db")
    await database.start()
    pragmas = await database._run(
        lambda: [
            database._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "busy_timeout")
        ]
    )
    assert pragmas == ["wal", 2, 10_000]
    plan = await database._run(
        lambda: database._connection.execute(
            "EXPLAIN QUERY PLAN SELECT * FROM workflow_updates WHERE workflow_id = 'x'"
        ).fetchone()[3]
    )
    assert "USING INDEX" in plan
    await database.stop()


async def test_sqlite_that_stays_locked_is_an_error_and_then_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bus is told to try again; when the lock is gone it works."""
    monkeypatch.setattr(sqlite_module, "BUSY_TIMEOUT", 0.1)
    database = open_database(f"sqlite:///{tmp_path}/events.db")
    await database.start()
    other = sqlite3.connect(tmp_path / "events.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseError, match="locked"):
        await database.write([row("1")])
    other.execute("ROLLBACK")
    other.close()
    assert await database.write([row("1")]) == 1
    await database.stop()


async def test_sqlite_in_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The error says which file and what to check."""
    with pytest.raises(DatabaseError, match=r"nowhere/events.db.*folder exists"):
        await open_database(f"sqlite:///{tmp_path}/nowhere/events.db").start()


async def test_postgres_that_is_not_there_is_an_error_without_the_password(unused_tcp_port: int) -> None:
    """It names the place and never the secret."""
    pytest.importorskip("asyncpg")
    database = open_database(f"postgresql://u:hunter2@127.0.0.1:{unused_tcp_port}/d")
    with pytest.raises(DatabaseError, match=rf"127.0.0.1:{unused_tcp_port}/d") as raised:
        await database.start()
    assert "hunter2" not in str(raised.value)


async def test_postgres_connections_that_break_are_replaced(postgres: str) -> None:
    """A broken connection costs at most one failed batch, and nothing is lost."""
    import asyncpg

    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(postgres)
    await admin.execute(f"CREATE DATABASE {name}")
    database = open_database(postgres.replace("/postgres?", f"/{name}?", 1))
    await database.start()
    await database.write([row("1")])
    await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
    written = 0
    try:
        async with asyncio.timeout(20):
            while not written:
                with contextlib.suppress(DatabaseError):
                    written = await database.write([row("1"), row("2")])
    finally:
        await database.stop()
        await admin.close()
    assert written == 1
