"""What processes tell each other at once, through a short stream that each of them reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import HyperbusError
from hyperbus.logger import get_logger
from hyperbus.runtime.coordination.refusals import Refusals
from hyperbus.signals import Announcer
from hyperbus.transport import Entry, Transport, record_names

#: How long one read waits.
BLOCK: Seconds = 5.0
#: Notices that are kept; nobody reads an old one.
KEEP = record_names.KEPT_NOTICES
#: Bytes of notices that one read may bring, about, and notices of the first one. Anybody can write large ones.
_READ_BYTES = 256 * 1024
_FIRST_COUNT = 16
#: A larger notice is none of ours.
_MOST_BYTES = 64 * 1024

#: Told the body of a notice.
Subscriber = Callable[[bytes], None]


class Notifier:
    """Gives notices, and tells subscribers of those of their kind. What is missed is found otherwise, only later."""

    def __init__(self, transport: Transport, clock: Clock, *, prefix: str, announcer: Announcer | None = None) -> None:
        self._transport = transport
        self._clock = clock
        self._key = record_names.notices_key(prefix)
        self._subscribers: dict[bytes, list[Subscriber]] = {}
        self._position: bytes | None = None
        self._count = _FIRST_COUNT
        self._told: set[bytes] = set()
        self._log = get_logger("hyperbus.notifier")
        self._refusals = Refusals(announcer or Announcer(), "notices")

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
                    read = await reader.read({self._key: self._position or b"0-0"}, count=self._count, block=BLOCK)
                except HyperbusError as error:
                    await self._clock.sleep(self._refusals.failed(error))
                    continue
                self._refusals.succeeded()
                for _, entries in read:
                    self._take(entries)
        finally:
            await reader.close()

    def _take(self, entries: Sequence[Entry]) -> None:
        """Tell of notices, and learn from their sizes how many the next read may ask for."""
        largest = 1
        for entry in entries:
            self._position = entry.id
            largest = max(largest, sum(map(len, entry.fields)))
            self._tell(entry.fields)
        self._count = max(1, min(KEEP, 2 * self._count, _READ_BYTES // largest))

    def _tell(self, fields: list[bytes]) -> None:
        if len(fields) < 2 or len(fields[1]) > _MOST_BYTES:  # noqa: PLR2004 - a name and a value
            return
        kind, body = fields[:2]
        for subscriber in tuple(self._subscribers.get(kind, ())):
            try:
                subscriber(body)
            except Exception:  # noqa: BLE001 - anybody can write a notice, and the next one has to be heard
                if kind not in self._told:
                    self._told.add(kind)
                    self._log.error("a notice could not be heard", kind=kind.decode(errors="replace"), exc_info=True)
