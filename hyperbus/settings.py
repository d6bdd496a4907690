"""Settings: what can be set outside the code. Command line first, then `HYPERBUS_*`, then `[tool.hyperbus]`."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from hyperbus.errors import InvalidSettingError

#: Where a bus keeps its events when no URL is given anywhere.
DEFAULT_URL = "embedded://.hyperbus"

#: The longest time that most settings take, in seconds.
DAY = 86_400
#: The longest time that what is kept may be kept for, in seconds.
LONGEST = 10 * 366 * DAY


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting, with its default. Durations are seconds, sizes bytes.

    Attributes:
        url: where the bus is; None means `DEFAULT_URL`, with a warning that names the folder.
        prefix: the part of every stream key before the first colon.
        codec: how events are written: "json" or "msgpack".
        max_event_bytes: larger encoded events are refused.
        publish_timeout: how long a publish may wait for room and for an answer.
        publish_buffer: events that may wait in a publisher before the next one has to.
        publish_buffer_bytes: the same, in bytes.
        once_window: how long repeats of an event id add nothing, when it is published with `once=True`.
        durability_timeout: how long a publish may wait, once stored, for the replicas or the disk that it asks for.
        connect_timeout: how long connecting may take.
        command_timeout: how long a server may take to answer a command.
        prefetch: entries that a worker may hold, handled or not, before it stops reading.
        prefetch_bytes: the same, in bytes.
        heartbeat_ttl: how long a worker counts as alive after its last heartbeat; a heartbeat is sent every quarter.
        scan_interval: how often the server is searched for streams that other programs made.
        drain_timeout: how long a stopping worker may go on with what is in flight.
        retain_age: how long an entry stays that every live group has acked, where its type does not say otherwise.
        retain_bytes: how much such entries may weigh in a stream; then the oldest of them go sooner.
        ghost_bytes: how much a stream may weigh that no group reads; then its oldest entries go.
        abandon_after: how long a group that nobody serves still holds its streams.
        max_rss: a worker process that holds more memory is replaced; one that holds half as much again is killed.
        max_deliveries: a worker process that had so many deliveries is replaced.
        max_handler_seconds: a worker process in which a handler runs for longer is killed.
        hung_after: a worker process that was not heard of for this long is called hung.
        loop: what worker processes run on: "asyncio", "uvloop", or "auto" for uvloop where it is installed.
        host: where HTTP and WebSocket servers listen.
        http_port: port of `/metrics`, `/healthz`, `/readyz`; 0 takes a free one.
        websocket_port: port of the WebSocket sink; 0 takes a free one.
        websocket_token: clients have to show this token; "" asks for none.
        websocket_origins: web origins that may connect, besides loopback ones; separated by commas.
        database_url: where the database writer writes.
        log_level: lowest level that is logged.
    """

    url: str | None = None
    prefix: str = "events"
    codec: str = "json"
    max_event_bytes: int = 1024 * 1024
    publish_timeout: float = 10.0
    publish_buffer: int = 10_000
    publish_buffer_bytes: int = 64 * 1024 * 1024
    once_window: float = 600.0
    durability_timeout: float = 2.0
    connect_timeout: float = 5.0
    command_timeout: float = 5.0
    prefetch: int = 1_000
    prefetch_bytes: int = 16 * 1024 * 1024
    heartbeat_ttl: float = 1.5
    scan_interval: float = 10.0
    drain_timeout: float = 10.0
    retain_age: float = 3_600.0
    retain_bytes: int = 16 * 1024 * 1024
    ghost_bytes: int = 256 * 1024 * 1024
    abandon_after: float = 7 * 86_400.0
    max_rss: int | None = None
    max_deliveries: int | None = None
    max_handler_seconds: float | None = None
    hung_after: float = 60.0
    loop: Literal["auto", "asyncio", "uvloop"] = "auto"
    host: str = "127.0.0.1"
    http_port: int = 9464
    websocket_port: int = 8765
    websocket_token: str = ""
    websocket_origins: str = ""
    database_url: str = "sqlite:///hyperbus.db"
    log_level: str = "info"

    def __post_init__(self) -> None:
        """Refuse numbers that would make something unbounded or stand still."""
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            lowest, highest = (0, 65_535) if field.name.endswith("_port") else (1, 2**40)
            if isinstance(value, int) and not lowest <= value <= highest:
                raise InvalidSettingError(f"{field.name}={value} has to be a whole number from {lowest} to {highest}")
            longest = LONGEST if field.name in {"retain_age", "abandon_after"} else DAY
            if isinstance(value, float) and not 0 < value <= longest:
                raise InvalidSettingError(f"{field.name}={value} has to be more than 0 and at most {longest} seconds")


#: Settings that may be given with a unit.
_SIZES = tuple(name for name in Settings.__struct_fields__ if name.endswith("_bytes") or name == "max_rss")
_SIZE = re.compile(r"\s*(?P<number>\d+(\.\d+)?)\s*(?P<unit>[kmgt]?)(i?b)?\s*", re.IGNORECASE)


def to_environment(settings: Settings) -> dict[str, str]:
    """Return the environment variables from which `load_settings` makes the same settings."""
    values = msgspec.structs.asdict(settings)
    return {f"HYPERBUS_{name.upper()}": str(value) for name, value in values.items() if value is not None}


def load_settings(
    overrides: Mapping[str, object] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Settings:
    """Return the settings that hold here: `overrides` (the command line), then the environment, then pyproject.toml.

    Values of None in `overrides` are not set.

    Raises:
        InvalidSettingError: one of them has an unknown name or a value that does not fit.
    """
    found: dict[str, Any] = {}
    found |= _from_project(folder or Path.cwd())
    found |= _from_environment(os.environ if environment is None else environment)
    found |= {name: value for name, value in (overrides or {}).items() if value is not None}
    found |= {name: _size(name, found[name]) for name in _SIZES if isinstance(found.get(name), str)}
    try:
        return msgspec.convert(found, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidSettingError(f"a setting cannot be used: {error} (see docs/settings.md)") from error


def _size(name: str, text: str) -> int:
    """Return a number of bytes from `"4096"` or `"512MB"`; units are powers of 1024."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidSettingError(f'{name}={text!r} has to be a number of bytes, or a size like "512MB" or "2G"')
    return int(float(found["number"]) * 1024 ** " KMGT".index(found["unit"].upper() or " "))


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for field in msgspec.structs.fields(Settings):
        value = environment.get(f"HYPERBUS_{field.name.upper()}")
        if value or (value is not None and field.default is not None):  # "" is no number and no URL: it is not set
            found[field.name] = value
    return found


def _from_project(folder: Path) -> dict[str, Any]:
    for place in (folder, *folder.parents):
        project = place / "pyproject.toml"
        if project.is_file():
            try:
                content = tomllib.loads(project.read_text())
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise InvalidSettingError(f"{project} cannot be read: {error}") from error
            tools = content.get("tool")
            table = tools.get("hyperbus", {}) if isinstance(tools, dict) else {}
            if not isinstance(table, dict):
                raise InvalidSettingError(f"{project}: hyperbus has to be a table, [tool.hyperbus]")
            return table
    return {}
