"""The table of what is done: its name, the key of a mark, and what goes wrong with it. Knows no driver."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from hyperbus.clock import Seconds
from hyperbus.declaration.delivery import Delivery
from hyperbus.errors import HyperbusError
from hyperbus.sinks.database.contract import DatabaseError, Row

#: One row for each event that a group has done.
DONE_TABLE = "hyperbus_done"
#: The most marks that one statement forgets, so that it holds no lock for long.
FORGET_AT_ONCE = 10_000
#: The sink's own marks are forgotten after this; the key of its rows still keeps an event from coming twice.
SINK_REMEMBERS: Seconds = 7 * 86_400.0
#: The sink looks for marks to forget each time it has written so many rows, and forgets at most twice as many.
SINK_FORGETS_EACH = 5_000
#: Longer keys are replaced by their hash: PostgreSQL cannot index them.
_MAX_KEY_BYTES = 1_000


class Mark(NamedTuple):
    """What names a piece of work: who does it, and for which event."""

    group: str
    event_id: str


def mark_of(delivery: Delivery) -> Mark:
    """Return the mark of a delivery. An entry that holds the same event again has the same mark."""
    return Mark(storable_key(delivery.group), storable_key(delivery.event.id))


def storable_key(text: str) -> str:
    """Return `text`, or its hash where a database could not keep it as it is: two keys never become one."""
    raw = text.encode(errors="surrogatepass")
    try:
        storable = len(raw) <= _MAX_KEY_BYTES and "\0" not in text and raw.decode() == text
    except UnicodeDecodeError:  # a lone surrogate
        storable = False
    return text if storable else "sha256:" + hashlib.sha256(raw).hexdigest()


def group_of(rows: Sequence[Row]) -> str:
    """Return the group of rows that are written together."""
    groups = {row.group for row in rows}
    if len(groups) > 1:
        raise HyperbusError(f"rows of {len(groups)} groups in one batch: write those of each group by themselves")
    return groups.pop()


def no_transaction(how: str) -> HyperbusError:
    """The mark would be kept whatever becomes of the work."""
    return HyperbusError(
        f"once() needs a transaction that holds the handler's work too, and none has begun on this connection: {how}"
    )


def no_table() -> HyperbusError:
    """`once` does not create its table: a failed statement would spoil the caller's transaction."""
    return HyperbusError(
        f"the table {DONE_TABLE} is not there: call prepare_once(connection) when the consumer starts, and commit"
    )


def not_usable(connection: Any) -> HyperbusError:
    """What was handed over is no connection that we know."""
    kind = type(connection)
    return HyperbusError(
        f"{kind.__module__}.{kind.__qualname__} cannot keep the mark of what is done: hand over the connection that "
        f"the work is done on, a sqlite3.Connection or one of asyncpg (of a pool: `async with pool.acquire()`)"
    )


def failed(database: str, error: BaseException) -> DatabaseError:
    """A statement about marks failed; the cause is the driver's error."""
    return DatabaseError(
        f"{database} could not read or write {DONE_TABLE}: {error or type(error).__name__}; roll back, "
        f"and let the handler fail: the bus tries the event again"
    )
