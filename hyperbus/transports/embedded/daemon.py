"""The process beside an embedded server: it starts the server, starts it again, and stops it when nobody uses it.

It is run as a file and imports the standard library only, so that it is small and starts fast. It learns that the last
user is gone from the lock that each of them holds: the kernel lets go of it however they die. Should a daemon itself be
killed, its server stays until the next user comes, whose daemon replaces it.

Usage: daemon.py FOLDER SOCKET BINARY LOCK_FD
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

#: A server that lived this long before it died is started again at once.
_SOUND = 10.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
#: How long a server may take to stop by itself; its data is safe without (the operating system has it).
_PATIENCE = 30.0
#: How locks are opened: others may write to the folder, and plant a link.
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW


class Server:
    """The server process. A thread of its own waits for its end, and starts it again unless it was to end."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    def stop(self) -> None:
        """Stop it, and return when it is gone."""
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._thread.join()

    def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            started = time.monotonic()
            with self._lock:
                if self._stopping.is_set():
                    return
                # A failure to start it at all is one more way for it to end at once.
                with suppress(OSError):
                    self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)  # noqa: S603 - our own
            if self._process is not None:
                code = self._process.wait()
                if self._stopping.is_set():
                    return
                print(f"the server ended with {code}; starting it again", flush=True)  # noqa: T201 - this is the log
            pause = _FIRST_PAUSE if time.monotonic() - started > _SOUND else min(pause * 2, _LONGEST_PAUSE)
            if self._stopping.wait(pause):
                return


def server_command(binary: str, folder: str, path: str) -> list[str]:
    """Return how the server is started: private, in the foreground, every write in its append-only file."""
    options = {
        "port": "0",
        "unixsocket": path,
        "unixsocketperm": "700",
        "dir": folder,
        "daemonize": "no",
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "logfile": "",
        "loglevel": "notice",
    }
    return [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]


def stop_orphan(path: str) -> None:
    """Stop a server whose daemon was killed, so that two never write to one folder."""
    while True:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            try:
                connection.connect(path)
                connection.sendall(b"*1\r\n$8\r\nSHUTDOWN\r\n")
                # It answers only to refuse, as while it loads; it hangs up when it is gone.
                while connection.recv(4096):
                    time.sleep(_FIRST_PAUSE)
                    connection.sendall(b"*1\r\n$8\r\nSHUTDOWN\r\n")
            except (FileNotFoundError, ConnectionRefusedError):
                return
            except OSError:
                time.sleep(_FIRST_PAUSE)


def wait_for_last_user(folder: Path) -> int:
    """Return when nobody uses the server, with the start lock, which keeps new users out until it is closed."""
    while True:
        users = os.open(folder / "users.lock", _LOCK, 0o600)
        fcntl.flock(users, fcntl.LOCK_EX)
        os.close(users)
        start = os.open(folder / "start.lock", _LOCK, 0o600)
        fcntl.flock(start, fcntl.LOCK_EX)
        users = os.open(folder / "users.lock", _LOCK, 0o600)
        try:
            # Somebody may have come before the start lock was ours. The locks are always taken in this order.
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(start)
        else:
            return start
        finally:
            os.close(users)


def _stop_on_signal(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def main(folder: str, path: str, binary: str, lock: int) -> None:
    """Keep the server until the last user is gone."""
    # The user waits for this process: it must not take the answers of an orphan for those of its own server.
    stop_orphan(path)
    # A grandchild of the user's leaves it nothing to wait for.
    if os.fork():
        os._exit(0)
    os.umask(0o077)
    signal.signal(signal.SIGTERM, _stop_on_signal)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    server = Server(server_command(binary, folder, path))
    server.start()
    try:
        wait_for_last_user(Path(folder))
    finally:
        server.stop()
        with suppress(OSError):
            Path(path).parent.rmdir()
        # Before the start lock goes with the process: who gets that one must not find a daemon that is leaving.
        os.close(lock)


if __name__ == "__main__":
    # The fourth argument is a locked file that stays open until this process ends: it says that a daemon is there.
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
