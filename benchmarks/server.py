"""A server of the benchmark's own: the embedded Valkey's binary, or the one that HYPERBUS_BENCH_SERVER names."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from hyperbus.transports.embedded.transport import find_server


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """Yield host and port of a server that keeps nothing on disk and ends with the block."""
    binary = os.environ.get("HYPERBUS_BENCH_SERVER") or find_server()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="hyperbus-bench-") as folder:
        process = subprocess.Popen(
            [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait(port, process)
            yield "127.0.0.1", port
        finally:
            process.terminate()
            process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            continue
    raise SystemExit(f"the benchmark's server ended at once with exit code {process.returncode}")
