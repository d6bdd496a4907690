"""A worker as its group knows it: what nearly every part of it needs to know."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field

import msgspec

from hyperbus.clock import Clock
from hyperbus.runtime.coordination.era import Era
from hyperbus.signals import Announcer
from hyperbus.transport import Streams


@dataclass(frozen=True, slots=True)
class Member:
    """A worker's place in its group.

    Attributes:
        group: the consumer group.
        consumer: this worker's name in it.
        streams: where the entries are.
        clock: tells the time.
        announcer: hears what happens.
        era: tells whether what is held may be the server's no more.
    """

    group: str
    consumer: str
    streams: Streams
    clock: Clock
    announcer: Announcer
    era: Era = field(default_factory=Era)

    def about(self) -> bytes:
        """Return who this is, for people."""
        return msgspec.json.encode(
            {"group": self.group, "host": socket.gethostname(), "pid": os.getpid(), "since": self.clock.now()}
        )
