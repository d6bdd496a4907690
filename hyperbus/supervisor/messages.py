"""What a supervisor and its processes tell each other: one JSON object a line."""

from __future__ import annotations

import msgspec

from hyperbus.clock import Seconds
from hyperbus.errors import HyperbusError
from hyperbus.settings import Settings

#: The environment variable that names the file descriptor a process reports on.
REPORT_FD = "HYPERBUS_REPORT_FD"


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to do. It reads them from its standard input, which stays open while its supervisor lives.

    With `wait_for_server` a server that cannot serve at the start is waited for: another process was ready before.
    """

    modules: tuple[str, ...]
    folder: str
    settings: Settings
    only_inspect: bool = False
    wait_for_server: bool = False


class Inspected(msgspec.Struct, frozen=True, kw_only=True, tag="inspected"):
    """The modules were loaded and not run."""

    consumers: tuple[str, ...]
    needs_websocket: bool


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """Every worker of the process reads."""


class Alive(msgspec.Struct, frozen=True, kw_only=True, tag="alive"):
    """The process's event loop turns. `workers` are their names in their groups.

    `deliveries` counts since the start; `oldest_running` is for how long the handler that began first has been running.
    `alone` says that nothing runs in it but an entry that is suspected of killing processes. `failing` names what
    failed in the background and is not known to run again.
    """

    connected: bool
    workers: tuple[str, ...]
    rss: int = 0
    deliveries: int = 0
    oldest_running: Seconds | None = None
    alone: bool = False
    failing: tuple[str, ...] = ()


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The process ends with an error; `server_at_fault` if the server was away, or did not do what it was asked."""

    message: str
    exit_code: int
    server_at_fault: bool = False

    def as_error(self) -> HyperbusError:
        """Return the error, with its exit code."""
        error = HyperbusError(self.message)
        error.exit_code = self.exit_code
        return error


Report = Inspected | Ready | Alive | Failed
