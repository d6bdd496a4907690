"""The name of a worker in its group."""

from __future__ import annotations

import os
import secrets
import socket


def consumer_name() -> str:
    """Return a name for a worker in its group: for people, who it is; for the bus, a token that is never used twice."""
    host = "".join(c if c.isalnum() or c in "-_." else "-" for c in socket.gethostname())[:64]
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
