"""Every event has a row, and every database URL a database or a reason."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from hyperbus.declaration.delivery import Delivery
from hyperbus.errors import InvalidSettingError, MissingExtraError
from hyperbus.event.codec import JsonCodec, MessagePackCodec
from hyperbus.event.envelope import Event
from hyperbus.settings import Settings
from hyperbus.sinks.database import database_from_settings, open_database, row_of
from hyperbus.sinks.database.sqlite import SqliteDatabase


async def no_publishing(_event: Event[Any]) -> str:
    raise NotImplementedError


def delivery(event: Event[Any], body: bytes) -> Delivery:
    return Delivery(
        entry_id="1-0",
        stream="events:a",
        group="db_writers",
        consumer="c",
        tries=1,
        body=body,
        event=event,
        publish_event=no_publishing,
    )


def row(body: bytes | None = None, **fields: Any) -> Any:
    event = Event(**{"type": "a", "data": {"x": 1}, **fields})
    return row_of(event, delivery(event, JsonCodec().encode(event) if body is None else body))


def test_a_row_holds_the_event_and_where_it_lay() -> None:
    """Columns come from the envelope and the delivery."""
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    found = row(id="e1", workflow_id="wf-1", source_agent="coder", timestamp=at)
    assert found[:8] == ("e1", "a", "wf-1", at, "coder", '{"x":1}', "1-0", "events:a")
    assert found.written_at.tzinfo is UTC
    assert found.group == "db_writers"


def test_fields_that_this_program_does_not_know_are_kept() -> None:
    """The data are those of the entry, not those of the class that it was read into."""
    assert row(b'{"id":"1","data":{"x":1,"later":[2.50]},"more":0}').data == '{"x":1,"later":[2.50]}'


@pytest.mark.parametrize("body", [b"{", b'{"data":', b"{}", b"\x81\xa1a\x01", b"", b'{"data":"\xff"}'])
def test_other_bytes_are_written_again_as_json(body: bytes) -> None:
    """What came as MessagePack, or is not what it seems, is encoded from the event."""
    assert row(body).data == '{"x":1}'


def test_messagepack_that_json_cannot_hold_has_a_row_all_the_same() -> None:
    """One odd event must not hold up its batch."""
    data = {(1, 2): "x"}
    event = Event(type="a", data=data)
    found = row_of(event, delivery(event, MessagePackCodec().encode(event)))
    assert "unencodable" in found.data


def test_texts_are_such_that_any_database_takes_them() -> None:
    """No NUL, no lone surrogate, no key that is too long for an index."""
    found = row(b"", id="a\0b", workflow_id="w" * 10_000, source_agent="\ud800x")
    assert found.event_id.startswith("sha256:")
    assert found.workflow_id.startswith("sha256:")
    assert len(found.workflow_id) < 100
    assert found.source_agent == "?x"


def test_ids_that_no_database_takes_stay_different() -> None:
    """An event must not count as done because another's id looks like it."""
    ids = ["a\0b", "a\ufffdb", "a\ud800b", "a\udfffb", "a?b", "a" * 1_000, "a" * 1_001, "a" * 1_002]
    keys = [row(b"", id=given).event_id for given in ids]
    assert len(set(keys)) == len(ids)
    assert [key for key in keys if not key.startswith("sha256:")] == ["a\ufffdb", "a?b", "a" * 1_000]


@pytest.mark.parametrize(
    ("timestamp", "stored"),
    [
        (datetime(2026, 1, 1, 12, tzinfo=UTC).replace(tzinfo=None), datetime(2026, 1, 1, 12, tzinfo=UTC)),
        (datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))), datetime(2026, 1, 1, 10, tzinfo=UTC)),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_are_utc(timestamp: datetime, stored: datetime) -> None:
    """Also the naive ones, and those at the end of the calendar."""
    found = row(b"", timestamp=timestamp).timestamp
    assert (found, found.tzinfo) == (stored, UTC)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///relative.db", Path("relative.db")),
        ("sqlite:////abs/olute.db", Path("/abs/olute.db")),
        ("sqlite:///with%20space.db", Path("with space.db")),
    ],
)
def test_a_sqlite_url_names_a_file(url: str, path: Path) -> None:
    """Three slashes are relative, four absolute."""
    database = open_database(url)
    assert isinstance(database, SqliteDatabase)
    assert database._path == path


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "mysql://h/d",
        "sqlite://",
        "sqlite:///",
        "sqlite://host/x.db",
        "sqlite:///x.db?a=b",
        "postgresql://h:x/d",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    """The error shows the forms that work."""
    with pytest.raises(InvalidSettingError, match=r"sqlite:///relative.db"):
        open_database(url)


def test_the_settings_name_the_database() -> None:
    """`database_url` is what the writer uses."""
    assert isinstance(database_from_settings(Settings(database_url="sqlite:///x.db")), SqliteDatabase)


def hide(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == hidden:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)


def test_postgres_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is a command."""
    hide(monkeypatch, "asyncpg")
    with pytest.raises(MissingExtraError, match=r"pip install 'hyperbus\[postgres\]'"):
        open_database("postgresql://localhost/x")


def test_websockets_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is a command."""
    from hyperbus.sinks.websocket import WebSocketBroadcaster

    hide(monkeypatch, "websockets")
    with pytest.raises(MissingExtraError, match=r"pip install 'hyperbus\[websocket\]'"):
        WebSocketBroadcaster()
