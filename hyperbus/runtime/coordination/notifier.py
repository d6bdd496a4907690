"""What processes tell each other at once, through a short stream that each of them reads."""

from __future__ import annotations

from collections.abc import Callable

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import HyperbusError
from hyperbus.event.routing import notices_key
from hyperbus.transport import Transport

#: How long one read waits.
BLOCK: Seconds = 5.0
#: The kind of notice that a publisher gives of a stream that it is the first to publish into.
STREAM_BORN = b"stream"
#: Notices that are kept; nobody reads an old one.
KEEP = 1_000
_PAUSE: Seconds = 0.5

#: Hears the body of a notice.
Hear = Callable[[bytes], None]


class Notifier:
    """Reads notices and tells who asked for their kind. What is missed is found otherwise, only later."""

    def __init__(self, transport: Transport, clock: Clock, *, prefix: str) -> None:
        self._transport = transport
        self._clock = clock
        self._key = notices_key(prefix)
        self._hearers: dict[bytes, list[Hear]] = {}
        self._position: bytes | None = None

    async def start(self) -> None:
        """Find the place after which notices are heard.

        Raises:
            BusUnavailable: the server cannot be reached.
        """
        if self._position is None:
            (self._position,) = await self._transport.streams.last_ids([self._key])

    def hear(self, kind: bytes, hearer: Hear) -> None:
        """Let `hearer` be told of notices of a kind."""
        self._hearers.setdefault(kind, []).append(hearer)

    def forget(self, kind: bytes, hearer: Hear) -> None:
        """Tell `hearer` no more."""
        self._hearers[kind].remove(hearer)

    async def give(self, kind: bytes, body: bytes) -> None:
        """Tell every process.

        Raises:
            BusUnavailable, ServerError: the server is away, or full.
        """
        await self._transport.streams.append_notice(self._key, kind, body, keep=KEEP)

    async def run(self) -> None:
        """Hear until cancelled."""
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
        for hearer in tuple(self._hearers.get(fields[0], ())) if len(fields) > 1 else ():
            hearer(fields[1])
