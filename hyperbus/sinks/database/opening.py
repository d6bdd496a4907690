"""URL → database."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from hyperbus.errors import InvalidSettingError
from hyperbus.settings import Settings, load_settings
from hyperbus.sinks.database.contract import Database
from hyperbus.sinks.database.postgres import PostgresDatabase
from hyperbus.sinks.database.sqlite import SqliteDatabase

_FORMS = "sqlite:///relative.db, sqlite:////absolute.db or postgresql://user@host/database"


def open_database(url: str) -> Database:
    """Return the database of `url`, not connected yet: `await start()` does that.

    Raises:
        InvalidSettingError: the URL cannot be used.
        MissingExtraError: PostgreSQL needs the extra `postgres`.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        return SqliteDatabase(_path(rest))
    if scheme in ("postgresql", "postgres"):
        try:
            parts = urlsplit(url)
            _ = parts.port  # raises for a port that is no number
        except ValueError as error:
            raise InvalidSettingError(f"database_url cannot be read: {error}; write it as {_FORMS}") from None
        return PostgresDatabase(url)
    raise InvalidSettingError(f"database_url begins with {scheme[:20]!r}; write it as {_FORMS}")


def database_from_settings(settings: Settings | None = None) -> Database:
    """Return the database that the settings name (`HYPERBUS_DATABASE_URL`)."""
    return open_database((settings or load_settings()).database_url)


def _path(rest: str) -> Path:
    name = unquote(rest.removeprefix("/"))
    if not rest.startswith("/") or not name or "?" in name or "\0" in name:
        raise InvalidSettingError(f"'sqlite://{rest}' names no file; write it as {_FORMS}")
    return Path(name)
