"""Effects once: the mark that an event was done, in the same transaction as the work itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, Generic, NoReturn, TypeGuard, TypeVar, overload

from hyperbus.clock import Seconds
from hyperbus.declaration.delivery import Delivery
from hyperbus.errors import HyperbusError
from hyperbus.sinks.database import postgres_marks, sqlite_marks
from hyperbus.sinks.database.marks import FORGET_AT_ONCE, mark_of, not_usable, storable_key
from hyperbus.sinks.database.postgres_marks import PostgresConnection

_T = TypeVar("_T")


class Answer(Awaitable[_T], Generic[_T]):
    """An answer that PostgreSQL has yet to give. `if once(...)` without `await` is an error, not always true."""

    def __init__(self, asking: Coroutine[Any, Any, _T]) -> None:
        self._asking = asking

    def __await__(self) -> Generator[Any, Any, _T]:
        return self._asking.__await__()

    def __bool__(self) -> NoReturn:
        self._asking.close()
        raise HyperbusError("PostgreSQL has not been asked yet: write `await once(connection, delivery)`")


@overload
def once(connection: sqlite3.Connection, delivery: Delivery) -> bool: ...
@overload
def once(connection: PostgresConnection, delivery: Delivery) -> Answer[bool]: ...
def once(connection: sqlite3.Connection | PostgresConnection, delivery: Delivery) -> bool | Answer[bool]:
    """Mark the delivery's event as done by its group; True: do the work now; False: it was done before, skip it.

    The mark belongs to the transaction that has begun on `connection`: both are kept, or neither. While another process
    is at the same event this waits for its end. What identifies an event is its id, however often it was published.

    Args:
        connection: where the work is done: a `sqlite3.Connection`, or one of asyncpg, whose answer has to be awaited.
        delivery: what the handler was handed.

    Raises:
        HyperbusError: no transaction has begun, or the table is not there (`prepare_once`).
        DatabaseError: the database refused; roll back and let the handler fail.
    """
    if isinstance(connection, sqlite3.Connection):
        return sqlite_marks.mark(connection, mark_of(delivery))
    if _is_of_asyncpg(connection):
        return Answer(postgres_marks.mark(connection, mark_of(delivery)))
    raise not_usable(connection)


@overload
def prepare_once(connection: sqlite3.Connection) -> None: ...
@overload
def prepare_once(connection: PostgresConnection) -> Answer[None]: ...
def prepare_once(connection: sqlite3.Connection | PostgresConnection) -> Answer[None] | None:
    """Create the table of marks, `hyperbus_done`, where it is missing. For `start` of a consumer.

    Part of a transaction if one has begun on `connection`: commit it.

    Raises:
        DatabaseError: the database refused.
    """
    if isinstance(connection, sqlite3.Connection):
        sqlite_marks.prepare(connection)
        return None
    if _is_of_asyncpg(connection):
        return Answer(postgres_marks.prepare(connection))
    raise not_usable(connection)


@overload
def forget_done(
    connection: sqlite3.Connection, older_than: Seconds, *, group: str | None = None, limit: int = FORGET_AT_ONCE
) -> int: ...
@overload
def forget_done(
    connection: PostgresConnection, older_than: Seconds, *, group: str | None = None, limit: int = FORGET_AT_ONCE
) -> Answer[int]: ...
def forget_done(
    connection: sqlite3.Connection | PostgresConnection,
    older_than: Seconds,
    *,
    group: str | None = None,
    limit: int = FORGET_AT_ONCE,
) -> int | Answer[int]:
    """Delete marks that are older than `older_than` seconds; return how many. After `limit` call it again.

    An event that comes again after its mark was forgotten is done again. Part of a transaction if one has begun.

    Args:
        connection: as for `once`.
        older_than: how long marks are kept, in seconds: longer than an event is retried, parked, or a dead letter.
        group: only the marks of this group, found by an index; by default of all, for which every mark is looked at.
        limit: the most to delete with this call.

    Raises:
        HyperbusError: the table is not there (`prepare_once`).
        DatabaseError: the database refused.
    """
    key = None if group is None else storable_key(group)
    if isinstance(connection, sqlite3.Connection):
        return sqlite_marks.forget(connection, older_than, key, limit)
    if _is_of_asyncpg(connection):
        return Answer(postgres_marks.forget(connection, older_than, key, limit))
    raise not_usable(connection)


def _is_of_asyncpg(connection: object) -> TypeGuard[PostgresConnection]:
    return hasattr(connection, "is_in_transaction")
