"""What handlers print: it goes on as long as somebody takes it, and holds nothing up where nobody does."""

from __future__ import annotations

import atexit
import contextlib
import io
import sys
from typing import TextIO

from hyperbus.clock import Seconds
from hyperbus.logger import get_logger
from hyperbus.observability.log_writer import LineWriter

#: How long a print waits for room, as long as its reader takes anything at all.
_PATIENCE: Seconds = 0.2


def guard_standard_streams() -> None:
    """Let no print to stdout or stderr block: what nobody takes is dropped, counted, and told of in the log."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not isinstance(getattr(stream.buffer, "raw", None), _Patient):
            with contextlib.suppress(OSError, ValueError):
                guarded = _guarded(stream, name)
                setattr(sys, name, guarded)
                atexit.register(guarded.flush)  # runs before the end of the thread that writes


def _guarded(stream: io.TextIOWrapper, name: str) -> TextIO:
    stream.flush()
    raw = _Patient(stream.fileno(), name)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),  # type: ignore[type-var]
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Patient(io.RawIOBase):
    """A descriptor that a thread writes to. Whoever writes here waits for room, but not for long."""

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._name = name
        self._writer = LineWriter(descriptor, self._tell)

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return io.FileIO(self._descriptor, "w", closefd=False).isatty()

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        chunk = bytes(data)
        self._writer.put(chunk, patience=_PATIENCE)
        return len(chunk)

    def _tell(self, count: int) -> str:
        get_logger("hyperbus").warning(
            "output was dropped: nobody took it", stream=self._name, writes=count
        )  # in the log, for what is printed may be for programs
        return ""
