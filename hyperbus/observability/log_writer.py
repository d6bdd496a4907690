"""Writes lines to a pipe, a file or a terminal from a thread of its own, so that a reader who stopped stops nobody."""

from __future__ import annotations

import atexit
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from hyperbus.clock import Seconds

#: Bytes that may wait to be written.
MOST_WAITING: Final = 256 * 1024
#: How long a line is waited for, while lines get through: so what a process says just before it dies is not lost.
_PATIENCE: Seconds = 0.05
#: How long no line is waited for after one that did not get through.
_IMPATIENCE: Seconds = 10.0
#: How long the end of a program waits for lines that are not written yet.
_AT_EXIT: Seconds = 0.5
#: How long to wait before a descriptor is asked again that was full, or could not be written.
_PAUSE_MS = 1_000


class LineWriter:
    """Hands lines to a thread that writes them to a descriptor.

    1. While lines get through, `write` returns when its line is written.
    2. Once one does not within `_PATIENCE`, nobody waits for a while: lines gather, up to `MOST_WAITING` bytes.
    3. What finds no room, and what the system refuses to write (a closed pipe, a full disk), is dropped and counted.
       `lost` makes a line that says how many were, and that comes in their place as soon as lines get through.
    4. A process that was forked off begins with nothing waiting, and a thread of its own.
    """

    def __init__(self, descriptor: int, lost: Callable[[int], str]) -> None:
        self._descriptor = descriptor
        self._lost = lost
        self._begin()
        os.register_at_fork(after_in_child=self._begin)
        atexit.register(self.flush, _AT_EXIT)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        #: Each with the number of lines that are lost if it is: one that tells of others stands for them.
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._size = 0
        self._dropped = 0
        self._impatient_until = 0.0
        self._in_mid_line = False
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> bool:
        """Write a line, or keep it until it can be written; False: it was dropped."""
        return self.put(text.encode(errors="backslashreplace"))

    def put(self, line: bytes, *, patience: Seconds = 0.0) -> bool:
        """Do what `write` does, but wait for room for so long, unless that was in vain a while ago."""
        with self._changed:
            if patience and time.monotonic() >= self._impatient_until:
                self._wait(lambda: self._has_room(line), patience)
            if not self._has_room(line):
                self._dropped += 1
                return False
            if self._dropped:
                self._tell_dropped()
            self._append(line, 1)
            if not self._start():
                return False
            self._changed.notify_all()
            if time.monotonic() >= self._impatient_until:
                self._wait(lambda: not self._size, max(patience, _PATIENCE))
        return True

    def _append(self, line: bytes, weight: int) -> None:
        self._waiting.append((line, weight))
        self._size += len(line)

    def _tell_dropped(self) -> None:
        """Let the next line say how many were dropped before it."""
        count, self._dropped = self._dropped, 0
        self._append(self._lost(count).encode(errors="backslashreplace"), count)

    def _has_room(self, line: bytes) -> bool:
        return self._size + len(line) <= MOST_WAITING or not self._size

    def _wait(self, holds: Callable[[], bool], patience: Seconds) -> None:
        """Wait until something holds; if that is in vain, do without for a while."""
        if threading.current_thread() is not self._thread and not self._changed.wait_for(holds, patience):
            self._impatient_until = time.monotonic() + _IMPATIENCE

    def flush(self, within: Seconds) -> bool:
        """Wait until everything is written, so long at most; tell whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._size, within)

    def _start(self) -> bool:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hyperbus log", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the system has no room for a thread, or the interpreter ends
                self._thread = None
                self._dropped += sum(weight for _, weight in self._waiting)
                self._waiting.clear()
                self._size = 0
                return False
        return True

    # -- in the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                line, weight = self._waiting[0]
            is_written = self._put(line)
            with self._changed:
                self._waiting.popleft()
                self._size -= len(line)
                if not is_written:
                    self._dropped += weight
                elif self._dropped and not self._waiting:
                    self._tell_dropped()
                self._changed.notify_all()

    def _put(self, line: bytes) -> bool:
        """Write a line whole; one that broke off is ended before the next one."""
        left = memoryview(b"\n" + line if self._in_mid_line else line)
        while left:
            try:
                count = os.write(self._descriptor, left)
            except BlockingIOError:
                _wait_writable(self._descriptor)  # somebody has made the descriptor one that does not wait
                continue
            except InterruptedError:
                continue
            except (OSError, ValueError):
                return False
            left = left[count:]
            self._in_mid_line = bool(left)
        return True


def _wait_writable(descriptor: int) -> None:
    poll = select.poll()
    try:
        poll.register(descriptor, select.POLLOUT)
        poll.poll(_PAUSE_MS)
    except (OSError, ValueError):
        time.sleep(_PAUSE_MS / 1000)
