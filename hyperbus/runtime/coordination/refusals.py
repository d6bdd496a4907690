"""What the server refuses to a part of the process: told once, and asked again after pauses that grow to a second."""

from __future__ import annotations

from hyperbus.clock import Seconds
from hyperbus.errors import (
    AuthenticationError,
    BusUnavailable,
    GroupNotFoundError,
    HyperbusError,
    ServerError,
    WrongTypeError,
)
from hyperbus.signals import Announcer, ConnectionChanged, RefusalChanged

FIRST_PAUSE: Seconds = 0.05
#: What is refused is asked again at least so often: work goes on soon after the server's change of mind.
LONGEST_PAUSE: Seconds = 1.0


def is_final(error: HyperbusError) -> bool:
    """Tell whether asking again cannot help: the key is no stream, or its group is gone.

    All else that a server may say passes: rights are given back, disks mended, memory freed, scripts end.
    """
    return isinstance(error, WrongTypeError | GroupNotFoundError)


class Refusals:
    """Tells once that the server refuses what a part asks, and once that it does so no longer.

    A server that is away is no refusal: the readers tell of it. Both are asked again after the same pauses.
    """

    def __init__(self, announcer: Announcer, part: str) -> None:
        self._announcer = announcer
        self._part = part
        self._pause = FIRST_PAUSE
        self._refused = False

    def failed(self, error: HyperbusError) -> Seconds:
        """Note that the server did not do what it was asked; return how long to wait before it is asked again."""
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        if not self._refused and not isinstance(error, BusUnavailable):
            self._refused = True
            self._announcer.announce(RefusalChanged(self._part, refused=True, error=str(error)))
        return pause

    def succeeded(self) -> None:
        """Note that the server did what it was asked."""
        self._pause = FIRST_PAUSE
        if self._refused:
            self._refused = False
            self._announcer.announce(RefusalChanged(self._part, refused=False))


class Losses:
    """Tells once that a reader has lost the server, and why, and once that it is found again.

    Where the server itself says why only later, as that the password is wrong, that is told too.
    """

    def __init__(self, announcer: Announcer, part: str) -> None:
        self._announcer = announcer
        self._part = part
        self._told: type[HyperbusError] | None = None

    def lost(self, error: HyperbusError) -> None:
        """Note that a read failed."""
        kind = type(error)
        says_why = isinstance(error, AuthenticationError | ServerError)
        if self._told is None or (says_why and kind is not self._told):
            self._told = kind
            self._announcer.announce(ConnectionChanged(self._part, connected=False, error=str(error), kind="reader"))

    def found(self) -> None:
        """Note that a read was answered."""
        if self._told is not None:
            self._told = None
            self._announcer.announce(ConnectionChanged(self._part, connected=True, kind="reader"))
