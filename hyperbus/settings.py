"""Settings: what can be set outside the code. Command line first, then `HYPERBUS_*`, then `[tool.hyperbus]`."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from hyperbus.errors import InvalidSettingError
from hyperbus.log_values import visible, without_secrets

#: Where everything lies that hyperbus keeps in the working directory by itself.
DATA_FOLDER = ".hyperbus"
#: Where a bus keeps its events when no URL is given anywhere.
DEFAULT_URL = f"embedded://{DATA_FOLDER}"
#: What log lines can look like, and the lowest of them that can be asked for.
LOG_FORMATS = ("auto", "pretty", "json", "logfmt")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")

#: The longest time that most settings take, in seconds.
DAY = 86_400
#: The longest time that what is kept may be kept for, in seconds.
LONGEST = 10 * 366 * DAY


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting, with its default. Durations are seconds, sizes bytes.

    Attributes:
        url: where the bus is; None means `DEFAULT_URL`, with a warning that names the folder.
        prefix: the part of every stream key before the first colon.
        source_agent: the `source_agent` of events that have none; under `hyperbus run` the package of its first module.
        codec: how events are written: "json" or "msgpack".
        max_event_bytes: larger encoded events are refused.
        check_events: an event that its consumers could not read is refused; false saves reading it back.
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
        websocket_token: clients have to show this token; with "" only those on this machine are let in.
        websocket_access: "everybody" lets clients on other machines in without a token.
        websocket_origins: web origins that may connect, besides loopback ones; separated by commas.
        database_url: where the database writer writes.
        log_level: lowest level that is logged.
        log_format: "pretty" lines for people, "json" or "logfmt"; "auto" for pretty ones on a terminal, else JSON.
    """

    url: str | None = None
    prefix: str = "events"
    source_agent: str | None = None
    codec: str = "json"
    max_event_bytes: int = 1024 * 1024
    check_events: bool = True
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
    websocket_access: Literal["token", "everybody"] = "token"
    websocket_origins: str = ""
    database_url: str = f"sqlite:///{DATA_FOLDER}/hyperbus.db"
    log_level: str = "info"
    log_format: Literal["auto", "pretty", "json", "logfmt"] = "auto"

    def __post_init__(self) -> None:
        """Refuse numbers that would make something unbounded or stand still."""
        for name in self.__struct_fields__:
            problem = _out_of_bounds(name, getattr(self, name))
            if problem:
                raise InvalidSettingError(problem)

    def __repr__(self) -> str:
        """Show what is set, without secrets: settings are printed where something went wrong."""
        default = {field.name: field.default for field in msgspec.structs.fields(type(self))}
        values = msgspec.structs.asdict(self).items()
        return f"Settings({', '.join(shown(name, value) for name, value in values if value != default[name])})"


def shown(name: str, value: object) -> str:
    """Return a setting with its value, for people; of a secret only that it is there."""
    if name == "websocket_token" or (name.endswith("url") and not isinstance(value, str)):
        return f"{name}=***"
    text = repr(value)
    return f"{name}={without_secrets(text) if name.endswith('url') else visible(text)[:100]}"


def _out_of_bounds(name: str, value: object) -> str:
    """Return what is wrong with a number; "" if nothing is."""
    lowest, highest = (0, 65_535) if name.endswith("_port") else (1, 2**40)
    if type(value) is int and not lowest <= value <= highest:
        return f"{name}={value} has to be a whole number from {lowest} to {highest}"
    longest = LONGEST if name in {"retain_age", "abandon_after"} else DAY
    if isinstance(value, float) and not 0 < value <= longest:
        return f"{name}={value} has to be more than 0 and at most {longest} seconds"
    return ""


#: What has to be one of some words, and is checked later where it is given in code.
_WORDS = {"codec": ("json", "msgpack"), "log_level": LOG_LEVELS}
_PREFIX = re.compile(r"[A-Za-z0-9_.-]+")
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
    found: dict[str, tuple[Any, str]] = {}
    found |= _from_project(folder or Path.cwd())
    found |= _from_environment(os.environ if environment is None else environment)
    found |= {
        name: (value, f"given on the command line as --{name.replace('_', '-')}")
        for name, value in (overrides or {}).items()
        if value is not None
    }
    fields = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    values = {}
    for name, (value, origin) in found.items():
        if name not in fields:
            raise InvalidSettingError(f"{name!r} ({origin}) is no setting; {_SEE}")
        values[name], problem = _read(name, fields[name], value)
        if problem:
            raise InvalidSettingError(f"{problem} ({origin}); {_SEE}")
    return Settings(**values)


_SEE = "see docs/settings.md"


def _read(name: str, kind: Any, value: Any) -> tuple[Any, str]:
    """Return a setting's value, made of what was given; and what is wrong with it, "" if nothing is."""
    if isinstance(value, str) and not _is_text(value):
        return None, f"{shown(name, value)} holds bytes that are no UTF-8"
    if name in _SIZES and isinstance(value, str):
        found = _SIZE.fullmatch(value)
        if found is None:
            return None, f'{shown(name, value)} has to be a number of bytes, or a size like "512MB" or "2G"'
        value = _size(found)
    try:
        value = msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        return None, f"{shown(name, value)} has to be {_kind_in_words(kind)}"
    if name in _WORDS and value.lower() not in _WORDS[name]:
        return None, f"{shown(name, value)} has to be one of {', '.join(_WORDS[name])}"
    if name == "prefix" and not _PREFIX.fullmatch(value):
        return None, f"{shown(name, value)} has to be made of letters, digits, '_', '.' and '-'"
    return value, _out_of_bounds(name, value)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind_in_words(kind: Any) -> str:
    kinds = [one for one in (get_args(kind) or (kind,)) if one is not type(None)]
    if all(isinstance(one, str) for one in kinds):
        return f"one of {', '.join(kinds)}"
    return {int: "a whole number", float: "a number of seconds"}.get(kinds[0], "text")


def _size(found: re.Match[str]) -> int:
    """Return a number of bytes from what `_SIZE` found; units are powers of 1024."""
    return int(float(found["number"]) * 1024 ** " KMGT".index(found["unit"].upper() or " "))


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    found = {}
    for field in msgspec.structs.fields(Settings):
        variable = f"HYPERBUS_{field.name.upper()}"
        value = environment.get(variable)
        if value or (value is not None and field.default is not None):  # "" is no number and no URL: it is not set
            found[field.name] = value, f"set by {variable}"
    return found


def _from_project(folder: Path) -> dict[str, tuple[Any, str]]:
    for place in (folder, *folder.parents):
        project = place / "pyproject.toml"
        if project.is_file():
            try:
                content = tomllib.loads(project.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise InvalidSettingError(f"{project} cannot be read: {error}") from error
            tools = content.get("tool")
            table = tools.get("hyperbus", {}) if isinstance(tools, dict) else {}
            if not isinstance(table, dict):
                raise InvalidSettingError(f"{project}: hyperbus has to be a table, [tool.hyperbus]")
            return {name: (value, f"set in [tool.hyperbus] of {project}") for name, value in table.items()}
    return {}
