"""How log lines look and where they go: for people on a terminal, JSON elsewhere; bounded, and without secrets."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

from hyperbus.errors import InvalidSettingError

#: A value of a log line is cut to this many characters.
MAX_VALUE_LENGTH = 2_000
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_SECRET_KEY = re.compile(r"token|password|passwd|secret|authorization|api_?key", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^\s/:@]*):[^\s/]*@")
_URL_TOKEN = re.compile(r"([?&](?:token|password|secret)=)[^&\s\"']+", re.IGNORECASE)
#: Control characters could end a line early or drive the terminal.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}
_EventDict = MutableMapping[str, Any]


class _Output:
    """A stream that outlives its reader: a log whose other end is gone must not end the program."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _Handler(logging.StreamHandler[Any]):
    """Ours among the root logger's handlers, so that configuring twice replaces it."""


def configure_logs(level: str, *, stream: TextIO | None = None, json: bool | None = None) -> None:
    """Send the lines of structlog and of the standard library to `stream` (stderr).

    Args:
        level: the lowest level that is logged: debug, info, warning, error or critical.
        stream: where lines go.
        json: JSON lines, or lines for people; None takes JSON unless `stream` is a terminal. Lines for people
            have colours on a terminal, unless NO_COLOR is set or TERM is "dumb".

    Raises:
        InvalidSettingError: there is no such level.
    """
    number = _LEVELS.get(level.lower())
    if number is None:
        raise InvalidSettingError(f"log_level={level!r} has to be one of {', '.join(_LEVELS)}")
    target = sys.stderr if stream is None else stream
    terminal = target.isatty()
    renderer = _renderer(terminal=terminal, json=not terminal if json is None else json)
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        bound_values,
    ]
    output: Any = _Output(target)
    structlog.configure(
        processors=[*chain, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=False,
    )
    _route_standard_library(number, output, chain, renderer)


def bound_values(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    """Cut long values, make control characters visible, and take out what looks like a secret."""
    return {key: _bound(key, value) for key, value in event.items()}


def _bound(key: str, value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if key.startswith("_"):
        return value  # structlog's own
    if _SECRET_KEY.search(key):
        return "***"
    text = value if isinstance(value, str) else repr(value)
    keeps_lines = key in ("exception", "stack")
    if len(text) > MAX_VALUE_LENGTH:
        # The end of a traceback says most.
        text = "…" + text[-MAX_VALUE_LENGTH:] if keeps_lines else text[:MAX_VALUE_LENGTH] + "…"
    clean = _URL_TOKEN.sub(r"\1***", _URL_PASSWORD.sub(r"\1:***@", text)).translate(_CONTROL)
    if not keeps_lines:
        clean = clean.replace("\n", "\\n")
    return clean if isinstance(value, str) or clean != repr(value) else value


def _renderer(*, terminal: bool, json: bool) -> Processor:
    if json:
        return structlog.processors.JSONRenderer(default=repr)
    return structlog.dev.ConsoleRenderer(
        colors=terminal and wants_colours(os.environ), exception_formatter=structlog.dev.plain_traceback
    )


def wants_colours(environment: Mapping[str, str]) -> bool:
    """Tell whether a terminal should be given colours (see no-color.org)."""
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def _route_standard_library(level: int, output: Any, chain: list[Processor], renderer: Processor) -> None:
    handler = _Handler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=chain[:-2],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *chain[-2:],
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
