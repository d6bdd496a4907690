"""What every part of the streams in memory shares: the data, and the state of the transport."""

from __future__ import annotations

from hyperbus.transports.memory.session import Session
from hyperbus.transports.memory.store import Store


class Part:
    """Some of the methods of the streams."""

    def __init__(self, store: Store, session: Session) -> None:
        self._store = store
        self._session = session
