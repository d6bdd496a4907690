"""Where log lines go: wherever the program that uses hyperbus lets its own go.

That is structlog, if the program has configured it; else logging, of the standard library, which shows warnings and
errors on stderr even if nobody has configured anything. structlog is not loaded for this: loading it takes half as long
as loading all of hyperbus.
"""

from __future__ import annotations

import inspect
import logging
import sys
from contextlib import suppress
from typing import Any, Final

from hyperbus.error_text import describe, repr_of, traceback_of
from hyperbus.interruption import is_from_signal
from hyperbus.log_values import MAX_VALUE_LENGTH, MOST_LOOKED_AT, as_words, bounded

#: How many calls above `_by_logging` somebody asked for a line.
_CALLER: Final = 4
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Logger:
    """A logger of one name. An event is a sentence, always the same; what changes is in the values."""

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, event: str, **values: Any) -> None:
        """Log what is of use when something is looked for."""
        self._log("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        """Log what happens as it should, and seldom."""
        self._log("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        """Log what went wrong and mends itself, or may go wrong."""
        self._log("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        """Log what went wrong and stays so."""
        self._log("error", event, values)

    def _log(self, level: str, event: str, values: dict[str, Any]) -> None:
        try:
            if not self._by_structlog(level, event, values):
                self._by_logging(level, event, values)
        except BaseException as error:
            if is_from_signal(error):
                raise
            # the program's own log, whose fault must not end what is told of
            with suppress(OSError, ValueError, AttributeError):
                sys.stderr.write(f"hyperbus: the log failed ({describe(error)}) when it was told: {event}\n")

    def _by_structlog(self, level: str, event: str, values: dict[str, Any]) -> bool:
        """Give the line to structlog; False: the program does not use it, or only where something awaits it."""
        structlog = sys.modules.get("structlog")
        if structlog is None or not structlog.is_configured():
            return False
        answer = getattr(structlog.get_logger(self._name), level)(event, **values)
        if not inspect.iscoroutine(answer):
            return True
        answer.close()
        return False

    def _by_logging(self, level: str, event: str, values: dict[str, Any]) -> None:
        logger, number = logging.getLogger(self._name), _LEVELS[level]
        if not logger.isEnabledFor(number):
            return
        exc_info = values.pop("exc_info", None)
        told = {key: bounded(key, value, text_of(value)) for key, value in values.items()}
        message = f"{event} ({as_words(told)})" if told else event
        path, line, function, _ = logger.findCaller(stacklevel=_CALLER)
        record = logger.makeRecord(
            self._name, number, path, line, "%s", (message,), exc_info, function, {"values": told}
        )  # fmt: skip
        if exc_info is not None:
            trace = traceback_of(exc_info[1], MAX_VALUE_LENGTH).rstrip("\n")
            record.exc_text = str(bounded("exception", trace, trace))  # what handlers print: without our frames
        logger.handle(record)


def get_logger(name: str) -> Logger:
    """Return the logger of this name."""
    return Logger(name)


def text_of(value: object) -> str:
    """Return a value as text, whatever it is."""
    return value if isinstance(value, str) else repr_of(value, MOST_LOOKED_AT)
