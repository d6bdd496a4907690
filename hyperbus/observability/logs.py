"""How log lines look and where they go: for people on a terminal, JSON elsewhere; bounded, and without secrets."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import Processor

from hyperbus.error_text import repr_of, traceback_of
from hyperbus.errors import InvalidSettingError
from hyperbus.log_values import MAX_VALUE_LENGTH, MOST_LOOKED_AT, as_logfmt, as_words, bounded, visible
from hyperbus.observability.log_writer import LineWriter
from hyperbus.settings import LOG_FORMATS, LOG_LEVELS

__all__ = ["MAX_VALUE_LENGTH", "bound_values", "configure_logs", "wants_colours"]

LogFormat = Literal["auto", "pretty", "json", "logfmt"]
_EventDict = MutableMapping[str, Any]
_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


class _Output:
    """Where lines go. A log whose other end is gone, or stands still, must neither end the program nor hold it up."""

    def __init__(self, stream: TextIO, lost: Callable[[int], str]) -> None:
        self._stream = stream
        self._writer: LineWriter | None = None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            descriptor = stream.fileno()
            stream.flush()
            self._writer = LineWriter(descriptor, lost)

    def write(self, text: str) -> int:
        if self._writer is not None:
            self._writer.write(text)
        else:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if self._writer is None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()


class _Handler(logging.StreamHandler[Any]):
    """Ours among the root logger's handlers, so that configuring twice replaces it."""


def configure_logs(level: str, form: LogFormat = "auto", *, stream: TextIO | None = None) -> None:
    """Send the lines of structlog and of the standard library to `stream` (stderr).

    Args:
        level: the lowest level that is logged: debug, info, warning, error or critical.
        form: "pretty" lines for people, "json" or "logfmt" for programs; "auto": pretty ones on a terminal, else JSON.
            Lines for people have colours on a terminal, unless NO_COLOR is set or TERM is "dumb".
        stream: where lines go. What it cannot take is dropped, counted, and told of once it takes lines again.

    Raises:
        InvalidSettingError: there is no such level, or no such form.
    """
    if level.lower() not in LOG_LEVELS:
        raise InvalidSettingError(f"log_level={level!r} has to be one of {', '.join(LOG_LEVELS)}")
    if form not in LOG_FORMATS:
        raise InvalidSettingError(f"log_format={form!r} has to be one of {', '.join(LOG_FORMATS)}")
    number = logging.getLevelNamesMapping()[level.upper()]
    target = sys.stderr if stream is None else stream
    terminal = target is not None and target.isatty()
    render = _renderer(form if form != "auto" else "pretty" if terminal else "json", terminal=terminal)
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _with_traceback,
        bound_values,
    ]
    output: Any = _Output(target, lambda count: _lost_lines(render, count)) if target is not None else _Nowhere()
    structlog.configure(
        processors=[*chain, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=False,
    )
    _route_standard_library(number, output, chain, render)


class _Nowhere:
    """Where lines go if the program was started without a stderr."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def _with_traceback(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    """Put the traceback of `exc_info` into words, from the first frame of a user's code on."""
    told = event.pop("exc_info", None)
    error = told if isinstance(told, BaseException) else told[1] if isinstance(told, tuple) else None
    if error is None and told:
        error = sys.exc_info()[1]
    if error is not None:
        event["exception"] = traceback_of(error, MAX_VALUE_LENGTH).rstrip("\n")
    return event


def bound_values(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    """Cut long values, make invisible characters visible, and take out what looks like a secret."""
    return {key: value if key.startswith("_") else _bound(key, value) for key, value in event.items()}


def _bound(key: str, value: object) -> object:
    return bounded(key, value, value if isinstance(value, str) else repr_of(value, MOST_LOOKED_AT))


# -- forms


def _renderer(form: str, *, terminal: bool) -> Processor:
    if form == "json":
        as_json = structlog.processors.JSONRenderer(default=repr_of)
        return lambda logger, method, event: as_json(logger, method, _in_order(event))
    if form == "logfmt":
        return _as_logfmt
    return _Pretty(coloured=terminal and wants_colours(os.environ))


def _as_logfmt(_logger: object, _method: str, event: _EventDict) -> str:
    return as_logfmt(_in_order(event).items())


def _in_order(event: _EventDict) -> _EventDict:
    """Put first what every line has."""
    return {**{key: event[key] for key in ("timestamp", "level", "event") if key in event}, **event}


class _Pretty:
    """One line for people, read from left to right: when, how bad, what, and the values in their order."""

    def __init__(self, *, coloured: bool) -> None:
        self._coloured = coloured

    def __call__(self, _logger: object, _method: str, event: _EventDict) -> str:
        level, words = str(event.pop("level", "info")), visible(str(event.pop("event", "")))
        event.pop("timestamp", None)
        below = [str(event.pop(key)) for key in ("stack", "exception") if event.get(key)]
        values = as_words({key: value for key, value in event.items() if not key.startswith("_")})
        moment = time.strftime("%H:%M:%S")
        line = " ".join(
            (self._in(_DIM, moment), self._in(_COLOURS.get(level, ""), f"{level:<7}"), self._in(_BOLD, words))
        )
        return "\n".join((f"{line}  {values}" if values else line, *below))

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._coloured and colour else text


def wants_colours(environment: Mapping[str, str]) -> bool:
    """Tell whether a terminal should be given colours (see no-color.org)."""
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def _lost_lines(render: Processor, count: int) -> str:
    """Return a line that says how many could not be written."""
    event = {
        "event": "log lines were dropped: nobody took them",
        "level": "warning",
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "count": count,
    }
    line = render(None, "warning", event)
    return line + "\n" if isinstance(line, str) else ""


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
