"""Whether the server is still the one that it was: another one, or one started anew, may have lost its tail."""

from __future__ import annotations

from typing import Any

from hyperbus.transports.redis.protocol.commands import pack
from hyperbus.transports.redis.protocol.server_facts import lines_of

#: Asked on each new connection, before anything else is.
WHO_ARE_YOU = pack("INFO", "server", "replication")


class Eras:
    """Counts the eras of a server, for all connections of one transport.

    An era ends when a new connection leads to a server with another history: it was started again, or another one has
    taken over. One that does not tell who it is, as for want of rights, is taken for the same.

    Attributes:
        current: the number of eras that have ended.
    """

    def __init__(self) -> None:
        self.current = 0
        self._known: tuple[str, str] | None = None

    def meet(self, reply: Any) -> None:
        """Take the answer to `WHO_ARE_YOU`."""
        facts = lines_of(reply) if isinstance(reply, bytes) else {}
        found = (facts.get("run_id", ""), facts.get("master_replid", ""))
        if not any(found):
            return
        if self._known is not None and found != self._known:
            self.current += 1
        self._known = found
