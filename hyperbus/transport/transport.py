"""The contract of a place where events are kept."""

from __future__ import annotations

from typing import Protocol

from hyperbus.transport.reader import Reader
from hyperbus.transport.records import Records
from hyperbus.transport.streams import Streams


class Transport(Protocol):
    """A place where events are kept: its streams, its records, and the connections to them."""

    @property
    def streams(self) -> Streams:
        """Its streams."""
        ...

    @property
    def records(self) -> Records:
        """Its records."""
        ...

    @property
    def era(self) -> int:
        """How often the place turned out to have another history, without its latest entries: ids come again then.

        An ack, a claim or a read of a group during which that is found out raises `BusUnavailable`, and was not sent.
        """
        ...

    @property
    def description(self) -> str:
        """Where it is, for people: the URL without user and password."""
        ...

    async def open(self) -> None:
        """Connect, and check that the server can be used.

        Raises:
            BusUnavailable: it cannot be reached.
            AuthenticationError: it refused the user or password.
            UnsupportedServerError: it is too old.
        """
        ...

    async def close(self) -> None:
        """Close every connection, readers too. Twice is safe."""
        ...

    def open_reader(self) -> Reader:
        """Return a new reader; it connects at its first use."""
        ...

    def separate(self) -> Transport:
        """Return another transport to the same place, unopened, for use on another event loop (a thread's)."""
        ...
