"""Writes events into the table `workflow_updates` of SQLite or PostgreSQL, each event once however often it comes."""

from __future__ import annotations

from hyperbus.sinks.database.contract import Database, DatabaseError, Row
from hyperbus.sinks.database.opening import database_from_settings, open_database
from hyperbus.sinks.database.row import row_of

__all__ = ["Database", "DatabaseError", "Row", "database_from_settings", "open_database", "row_of"]
