"""Writes events into the table `workflow_updates` of SQLite or PostgreSQL, each event once however often it comes.

For handlers that do database work of their own, `once` does the same: see docs/effects-once.md.
"""

from __future__ import annotations

from hyperbus.sinks.database.contract import Database, DatabaseError, Row
from hyperbus.sinks.database.once import forget_done, once, prepare_once
from hyperbus.sinks.database.opening import database_from_settings, open_database
from hyperbus.sinks.database.row import row_of

__all__ = [
    "Database",
    "DatabaseError",
    "Row",
    "database_from_settings",
    "forget_done",
    "once",
    "open_database",
    "prepare_once",
    "row_of",
]
