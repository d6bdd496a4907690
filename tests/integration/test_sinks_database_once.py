"""`once`: a handler's database work and the mark of it are kept together, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from hyperbus import Bus, Delivery, Event, EventData, consumer
from hyperbus.errors import HyperbusError
from hyperbus.sinks.database import DatabaseError, forget_done, once, prepare_once


class Paid(EventData, type="once_test.paid"):
    n: int = 0


def delivery(event_id: str, *, group: str = "payers", entry_id: str = "1-0") -> Delivery:
    async def publish(_event: Event[Any]) -> str:
        raise NotImplementedError

    event = Event(id=event_id, data=Paid())
    return Delivery(
        entry_id=entry_id, stream="events:x", group=group, consumer="c", tries=1, body=b"", event=event,
        publish_event=publish,
    )  # fmt: skip


class SqliteSide:
    """A SQLite file, as a handler uses it."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self) -> None:
        self.connection = sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None, timeout=10)

    async def close(self) -> None:
        self.connection.close()

    async def run(self, statement: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement).fetchall()

    async def once(self, what: Delivery) -> bool:
        return once(self.connection, what)

    async def prepare(self) -> None:
        prepare_once(self.connection)

    async def forget(self, older_than: float, **options: Any) -> int:
        return forget_done(self.connection, older_than, **options)

    async def make_older(self, seconds: int, event_id: str) -> None:
        await self.run(f"UPDATE hyperbus_done SET done_at = done_at - {seconds} WHERE event_id = '{event_id}'")

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")


class PostgresSide:
    """A PostgreSQL database, as a handler uses it."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self) -> None:
        import asyncpg

        self.connection = await asyncpg.connect(self.url)

    async def close(self) -> None:
        await self.connection.close()

    async def run(self, statement: str) -> list[tuple[Any, ...]]:
        return [tuple(record) for record in await self.connection.fetch(statement)]

    async def once(self, what: Delivery) -> bool:
        return await once(self.connection, what)

    async def prepare(self) -> None:
        await prepare_once(self.connection)

    async def forget(self, older_than: float, **options: Any) -> int:
        return await forget_done(self.connection, older_than, **options)

    async def make_older(self, seconds: int, event_id: str) -> None:
        await self.run(
            f"UPDATE hyperbus_done SET done_at = done_at - interval '{seconds} s' WHERE event_id = '{event_id}'"
        )

    def transaction(self) -> Any:
        return self.connection.transaction()


Side = SqliteSide | PostgresSide


@pytest.fixture(params=["sqlite", "postgres"])
async def side(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Side]:
    if request.param == "sqlite":
        side: Side = SqliteSide(f"sqlite:///{tmp_path}/events.db")
    else:
        import asyncpg

        server: str = request.getfixturevalue("postgres")
        name = f"test_{uuid4().hex}"
        admin = await asyncpg.connect(server)
        await admin.execute(f"CREATE DATABASE {name}")
        await admin.close()
        side = PostgresSide(server.replace("/postgres?", f"/{name}?", 1))
    await side.open()
    await side.prepare()
    await side.run("CREATE TABLE effects (event_id TEXT)")  # no key: it would hide what is done twice
    yield side
    await side.close()


async def work(side: Side, what: Delivery) -> bool:
    async with side.transaction():
        new = await side.once(what)
        if new:
            await side.run(f"INSERT INTO effects VALUES ('{what.event.id}')")
    return new


async def effects(side: Side) -> list[str]:
    return [found for (found,) in await side.run("SELECT event_id FROM effects ORDER BY 1")]


async def test_an_event_is_done_once_by_each_group_whatever_its_entry_is(side: Side) -> None:
    """Its id is what it is known by: a new entry of the same event is not new work, a new event in that entry is."""
    assert await work(side, delivery("e1"))
    assert not await work(side, delivery("e1"))
    assert not await work(side, delivery("e1", entry_id="9-0"))
    assert await work(side, delivery("e2"))
    assert await work(side, delivery("e1", group="others"))
    assert await effects(side) == ["e1", "e1", "e2"]


async def test_what_is_rolled_back_is_done_again(side: Side) -> None:
    """The mark goes with the work."""

    async def fail() -> None:
        async with side.transaction():
            assert await side.once(delivery("e1"))
            assert not await side.once(delivery("e1"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await work(side, delivery("e1"))
    assert await effects(side) == ["e1"]


async def test_odd_ids_are_kept_apart(side: Side) -> None:
    """Also those that the database itself could not hold, or index."""
    ids = ["a\0", "a\ufffd", "a\ud800", "é\U0001f600", "", "'", "x" * 20_000, "\U0001f600" * 20_000]
    for _ in range(2):
        answers = []
        for event_id in ids:
            async with side.transaction():
                answers.append(await side.once(delivery(event_id)))
    assert answers == [False] * len(ids)
    assert await side.run("SELECT count(*) FROM hyperbus_done") == [(len(ids),)]


async def test_without_a_transaction_it_is_an_error_that_says_how(side: Side) -> None:
    """The mark alone would be kept, and the event lost when the work fails."""
    with pytest.raises(HyperbusError, match=r"BEGIN IMMEDIATE|connection\.transaction\(\)"):
        await side.once(delivery("e1"))
    assert await side.run("SELECT * FROM hyperbus_done") == []


async def test_without_its_table_it_is_an_error_that_says_how(side: Side) -> None:
    """It names what creates the table, which can be done again and again."""
    await side.run("DROP TABLE hyperbus_done")
    with pytest.raises(HyperbusError, match="prepare_once"):
        await work(side, delivery("e1"))
    with pytest.raises(HyperbusError, match="prepare_once"):
        await side.forget(1)
    await side.prepare()
    assert await work(side, delivery("e1"))
    await side.prepare()
    assert not await work(side, delivery("e1"))


async def test_old_marks_are_forgotten(side: Side) -> None:
    """By age, by group, and no more at once than asked for."""
    for n in range(6):
        await work(side, delivery(f"e{n}", group=f"g{n % 2}"))
        if n:
            await side.make_older(1_000, f"e{n}")
    assert await side.forget(2_000) == 0
    assert await side.forget(500, group="g0") == 2
    assert await side.forget(500, limit=2) == 2
    assert await side.forget(500) == 1
    assert await side.run("SELECT consumer_group, event_id FROM hyperbus_done") == [("g0", "e0")]
    assert await work(side, delivery("e2", group="g0"))


async def test_postgres_has_to_be_awaited(postgres: str) -> None:
    """Without `await` it would always be true, and the work done each time."""
    import asyncpg

    async with asyncpg.create_pool(postgres, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        await prepare_once(connection)
        async with connection.transaction():
            with pytest.raises(HyperbusError, match="await once"):
                bool(once(connection, delivery("e1")))
            assert await once(connection, delivery("e1"))
            with pytest.raises(HyperbusError, match=r"pool\.acquire"):
                once(pool, delivery("e1"))


@pytest.mark.parametrize("side", ["postgres"], indirect=True)
async def test_postgres_that_refuses_is_a_database_error(side: Side) -> None:
    """For one, in a transaction that has failed already."""
    assert isinstance(side, PostgresSide)
    async with side.transaction():
        with contextlib.suppress(Exception):
            await side.run("nonsense")
        with pytest.raises(DatabaseError, match="roll back"):
            await side.once(delivery("e1"))


async def test_a_handler_that_fails_after_its_commit_has_one_effect(side: Side) -> None:
    """On a bus: what is tried again, and what is published again, is skipped."""
    calls: list[tuple[str, bool]] = []

    @consumer(group="payers")
    async def pay(event: Event[Paid], delivery: Delivery) -> None:
        new = await work(side, delivery)
        calls.append((event.id, new))
        if new:
            raise ConnectionError("lost after the commit")

    events = [Event(data=Paid(n=n)) for n in range(3)]
    async with Bus("memory://") as bus, bus.running(pay):
        await bus.publish_many(events + events[:1])
        async with asyncio.timeout(15):
            while sum(not new for _, new in calls) < 4:
                await asyncio.sleep(0.005)
    assert await effects(side) == sorted(event.id for event in events)
    assert sum(new for _, new in calls) == 3


_WORKER = """
import asyncio, contextlib, sqlite3, sys
from hyperbus import Delivery, Event
from hyperbus.sinks.database import once, prepare_once
def delivery(n):
    event = Event(id=f"e{n:03}", type="a", data={})
    return Delivery(entry_id="1-0", stream="s", group="g", consumer="c", tries=1, body=b"", event=event, publish_event=None)
def tell(word, n, hold):
    print(word, n, flush=True)
    if hold == f"{word} {n}":
        sys.stdin.readline()
def with_sqlite(path, count, hold):
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    prepare_once(connection)
    for n in range(count):
        connection.execute("BEGIN IMMEDIATE")
        if once(connection, delivery(n)):
            connection.execute("INSERT INTO effects VALUES (?)", (delivery(n).event.id,))
        tell("worked", n, hold)
        connection.execute("COMMIT")
        tell("committed", n, hold)
async def with_postgres(url, count, hold):
    import asyncpg
    connection = await asyncpg.connect(url)
    await prepare_once(connection)
    for n in range(count):
        async with connection.transaction():
            if await once(connection, delivery(n)):
                await connection.execute("INSERT INTO effects VALUES ($1)", delivery(n).event.id)
            tell("worked", n, hold)
        tell("committed", n, hold)
url, count, hold = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if url.startswith("sqlite"):
    with_sqlite(url.removeprefix("sqlite:///"), count, hold)
else:
    asyncio.run(with_postgres(url, count, hold))
"""


def start_worker(side: Side, count: int, hold: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WORKER, side.url, str(count), hold],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def kill_after(worker: subprocess.Popen[str], lines: int) -> str:
    """Read so many lines, kill the process as it stands, and return the last line that it could still say."""
    assert worker.stdout is not None
    last = [worker.stdout.readline() for _ in range(lines)][-1]
    worker.kill()
    said = worker.communicate(timeout=20)[0].splitlines()
    return said[-1] if said else last.strip()


@pytest.mark.parametrize(("word", "kept"), [("worked", 2), ("committed", 3)])
async def test_killed_between_work_and_commit_or_commit_and_ack(side: Side, word: str, kept: int) -> None:
    """What was not committed is done by who is handed the event next; what was is skipped. Once each."""
    worker = start_worker(side, 5, hold=f"{word} 2")
    lines = 5 if word == "worked" else 6
    assert await asyncio.to_thread(kill_after, worker, lines) == f"{word} 2"
    assert await effects(side) == [f"e{n:03}" for n in range(kept)]
    again = start_worker(side, 5)
    await asyncio.to_thread(again.communicate, None, 30)
    assert again.returncode == 0
    assert await effects(side) == [f"e{n:03}" for n in range(5)]


async def test_processes_that_race_and_are_killed_do_each_event_once(side: Side) -> None:
    """Two have the same events; one of them is killed again and again, wherever it stands."""
    if isinstance(side, SqliteSide):
        await side.run("PRAGMA journal_mode=WAL")
    await side.run("DROP TABLE hyperbus_done")  # they race for the table too
    chance = random.Random(3)
    count = 150
    steady = start_worker(side, count)
    steady_end = asyncio.create_task(asyncio.to_thread(steady.communicate, None, 45))
    ends = [
        await asyncio.to_thread(kill_after, start_worker(side, count), chance.randrange(2, count)) for _ in range(5)
    ]
    assert any(end != f"committed {count - 1}" for end in ends)  # killed on the way
    last = start_worker(side, count)
    await asyncio.to_thread(last.communicate, None, 45)
    await steady_end
    assert (steady.returncode, last.returncode) == (0, 0)
    assert await effects(side) == [f"e{n:03}" for n in range(count)]
    assert await side.run("SELECT count(*) FROM hyperbus_done") == [(count,)]
