"""What a supervisor and its slots know together: whether everything stops, and whether a process was ever ready."""

from __future__ import annotations

import asyncio
import signal


class RunState:
    """The state of one run.

    Attributes:
        stopping: every process drains.
        killing: no process is waited for.
        became_ready: a process did, since somebody looked last.
        was_ready: a process ever was: what fails then is no mistake of the start.
        late: how many processes did not end well that were told to end.
    """

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.killing = asyncio.Event()
        self.became_ready = asyncio.Event()
        self.was_ready = False
        self.late = 0

    def stop(self) -> None:
        """Let every process drain; called again, kill them."""
        if self.stopping.is_set():
            self.killing.set()
        self.stopping.set()

    def note_ready(self) -> None:
        """Hear that a process is ready."""
        self.was_ready = True
        self.became_ready.set()

    def note_end(self, code: int) -> None:
        """Hear how a process ended that was told to; SIGTERM ends one that had not begun to work."""
        self.late += code not in (0, -signal.SIGTERM)
