"""What happened, as lines of JSON in files that only grow. A line is one write, so a killed process leaves whole lines."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any


class History:
    """A file that one process appends to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
        self._lock = threading.Lock()

    def add(self, *lines: dict[str, Any]) -> None:
        """Append lines; they are in the file when this returns."""
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
        with self._lock:
            written = os.write(self._descriptor, text)
        assert written == len(text), "the disk is full: the history is worth nothing"
