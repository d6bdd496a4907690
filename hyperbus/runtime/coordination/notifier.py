"""What processes tell each other at once, through a short stream that each of them reads."""

from __future__ import annotations

from collections.abc import Callable

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import HyperbusError
from hyperbus.transport import Transport, record_names

#: How long one read waits.
BLOCK: Seconds = 5.0
#: Notices that are kept; nobody reads an old one.
KEEP = 1_000
_PAUSE: Seconds = 0.5

#: Told the body of a notice.
Subscriber = Callable[[bytes], None]


class Notifier:
    """Gives notices, and tells subscribers of those of their kind. What is missed is found otherwise, only later."""

    def __init__(self, transport: Transport, clock: Clock, *, prefix: str) -> None:
        self._transport = transport
        self._clock = clock
        self._key = record_names.notices_key(prefix)
        self._subscribers: dict[bytes, list[Subscriber]] = {}
        self._position: bytes | None = None

    async def start(self) -> None:
        """Find the place after which notices are read.

        Raises:
            BusUnavailable: the server cannot be reached.
        """
        if self._position is None:
            (self._position,) = await self._transport.streams.last_ids([self._key])

    def subscribe(self, kind: bytes, subscriber: Subscriber) -> None:
        """Tell `subscriber` of notices of a kind from now on."""
        self._subscribers.setdefault(kind, []).append(subscriber)

    def unsubscribe(self, kind: bytes, subscriber: Subscriber) -> None:
        """Tell `subscriber` no more."""
        self._subscribers[kind].remove(subscriber)

    async def notify(self, kind: bytes, body: bytes) -> None:
        """Tell every process, this one too.

        Raises:
            BusUnavailable, ServerError: the server is away, or full.
        """
        await self._transport.streams.append_notice(self._key, kind, body, keep=KEEP)

    async def run(self) -> None:
        """Read notices until cancelled."""
        reader = self._transport.open_reader()
        try:
            while True:
                try:
                    await self.start()
                    read = await reader.read({self._key: self._position or b"0-0"}, count=KEEP, block=BLOCK)
                except HyperbusError:
                    await self._clock.sleep(_PAUSE)
                    continue
                for _, entries in read:
                    for entry in entries:
                        self._position = entry.id
                        self._tell(entry.fields)
        finally:
            await reader.close()

    def _tell(self, fields: list[bytes]) -> None:
        for subscriber in tuple(self._subscribers.get(fields[0], ())) if len(fields) > 1 else ():
            subscriber(fields[1])
