"""Where log lines go: structlog, which is loaded when the first logger is made.

Loading it takes half as long as loading all of hyperbus; a program that only imports hyperbus does not wait for it.
"""

from __future__ import annotations

from typing import Any


def get_logger(name: str) -> Any:
    """Return structlog's logger of this name."""
    import structlog

    return structlog.get_logger(name)
