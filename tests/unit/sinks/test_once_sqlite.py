"""`once` on the connections that Python's sqlite3 can make, and on what is no connection."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperbus.declaration.delivery import Delivery
from hyperbus.errors import HyperbusError
from hyperbus.event.envelope import Event
from hyperbus.sinks.database import DatabaseError, forget_done, once, prepare_once, sqlite_marks

Connect = Callable[..., sqlite3.Connection]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    opened: list[sqlite3.Connection] = []

    def connect(**options: Any) -> sqlite3.Connection:
        opened.append(sqlite3.connect(tmp_path / "x.db", **options))
        return opened[-1]

    prepare_once(connect())
    yield connect
    for connection in opened:
        connection.close()


def delivery(event_id: str = "e1") -> Delivery:
    async def publish(_event: Event[Any]) -> str:
        raise NotImplementedError

    event = Event(id=event_id, type="a", data={})
    return Delivery(
        entry_id="1-0", stream="s", group="g", consumer="c", tries=1, body=b"", event=event, publish_event=publish
    )


def test_a_connection_as_python_makes_it_begins_by_itself(connect: Connect) -> None:
    """The mark is the first write, and begins the transaction that `with` ends."""
    connection = connect()
    assert once(connection, delivery())
    assert connection.in_transaction
    connection.rollback()
    with connection:
        assert once(connection, delivery())
    with connection:
        assert not once(connection, delivery())
    assert not once(connect(), delivery())


def test_a_connection_that_leaves_it_to_its_user_has_to_have_begun(connect: Connect) -> None:
    """By BEGIN or by a savepoint; otherwise nothing is marked."""
    connection = connect(isolation_level=None)
    with pytest.raises(HyperbusError, match="BEGIN IMMEDIATE"):
        once(connection, delivery())
    for begin, end in (("BEGIN", "ROLLBACK"), ("SAVEPOINT x", "RELEASE x")):
        connection.execute(begin)
        assert once(connection, delivery())
        connection.execute(end)
    assert not once(connect(), delivery())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the option is new in Python 3.12")
def test_the_autocommit_option_is_understood(connect: Connect) -> None:
    """True never begins a transaction, False always has one."""
    with pytest.raises(HyperbusError, match="BEGIN IMMEDIATE"):
        once(connect(autocommit=True), delivery())
    connection = connect(autocommit=False)
    assert once(connection, delivery())
    connection.rollback()
    assert once(connection, delivery())
    connection.commit()
    assert not once(connect(), delivery())


def test_a_database_that_stays_locked_is_a_database_error(connect: Connect) -> None:
    """The handler fails with it, and the bus tries again."""
    connect(isolation_level=None).execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseError, match="locked") as raised:
        once(connect(timeout=0), delivery())
    assert isinstance(raised.value.__cause__, sqlite3.OperationalError)


def test_old_marks_are_found_without_reading_all(connect: Connect) -> None:
    """Forgetting the marks of a group uses an index, or it would hold up writers."""
    plan = connect().execute(f"EXPLAIN QUERY PLAN {sqlite_marks._FORGET_OF_GROUP}", ("g", 1, 1)).fetchall()
    assert any("INDEX hyperbus_done_done_at (consumer_group=? AND done_at<?)" in step[3] for step in plan), plan
    assert not any("SCAN hyperbus_done" in step[3] for step in plan), plan


@pytest.mark.parametrize("call", [lambda it: once(it, delivery()), prepare_once, lambda it: forget_done(it, 1)])
def test_other_connections_are_refused(call: Callable[[Any], object]) -> None:
    """The error names those that can be used."""
    with pytest.raises(HyperbusError, match=r"builtins\.object.*sqlite3\.Connection"):
        call(object())
