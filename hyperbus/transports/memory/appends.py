"""Appending in memory. It can be done once, but not durably: there are no replicas and no disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, DurabilityUnsupported, HyperbusError, PublishRefusedError, WrongTypeError
from hyperbus.transport import Durability, NewEntry
from hyperbus.transport.appends import Tell
from hyperbus.transports.keys import once_key
from hyperbus.transports.memory.part import Part

_ONLY_HERE = (
    "memory:// keeps events in this process only, on no disk and no replica: use a server, or leave out durability"
)
#: What a server keeps at most beyond what it was told, as it cuts whole blocks.
_BLOCK = 100


class MemoryAppends(Part):
    """Implements `hyperbus.transport.Appends`."""

    async def append(
        self, entries: Iterable[NewEntry], *, durability: Durability | None = None, tell: Tell | None = None
    ) -> list[str | HyperbusError]:
        """Append entries in order; return the id of each, or the error it met. `tell` hears nothing: it is quick."""
        del tell
        refusal = await self._refusal(durability)
        if refusal is not None:
            return [refusal for _ in entries]
        with self._store.lock:
            return [self._append(entry) for entry in entries]

    async def append_once(
        self, entries: Sequence[tuple[NewEntry, str]], *, window: Seconds, durability: Durability | None = None
    ) -> list[str | HyperbusError]:
        """Append (entry, event id) in order, where the stream was not given that event id within `window`."""
        refusal = await self._refusal(durability)
        if refusal is not None:
            return [refusal for _ in entries]
        with self._store.lock:
            return [self._append_once(entry, event_id, window) for entry, event_id in entries]

    async def append_notice(self, stream: str, field: bytes, body: bytes, *, keep: int) -> str:
        """Append one entry and return its id; keep about the last `keep` entries."""
        await self._session.enter()
        with self._store.lock:
            log = self._store.make_stream(stream)
            entry_id = log.append((field, body), self._store.clock.now())
            surplus = len(log.entries) - max(1, keep)
            if surplus >= _BLOCK:
                log.trim(log.last_id, surplus)
            self._store.notify(stream)
            return entry_id.decode()

    async def check_durability(self, durability: Durability) -> None:
        """Refuse: memory is neither a replica nor a disk."""
        del durability
        await self._session.enter()
        raise DurabilityUnsupported(_ONLY_HERE)

    async def _refusal(self, durability: Durability | None) -> HyperbusError | None:
        try:
            await self._session.enter()
        except BusUnavailable as error:
            return error
        return None if durability is None else DurabilityUnsupported(_ONLY_HERE)

    def _append(self, entry: NewEntry) -> str | HyperbusError:
        try:
            stream = self._store.make_stream(entry.stream)
        except WrongTypeError as error:
            return PublishRefusedError(str(error))
        entry_id = stream.append((entry.field, entry.body), self._store.clock.now())
        self._store.notify(entry.stream)
        return entry_id.decode()

    def _append_once(self, entry: NewEntry, event_id: str, window: Seconds) -> str | HyperbusError:
        key = once_key(entry.stream, event_id)
        try:
            known = self._store.holding(key, bytes)
        except WrongTypeError as error:
            return PublishRefusedError(str(error))
        if known is not None:
            self._store.renew(key, window)
            return known.decode()
        result = self._append(entry)
        if isinstance(result, str):
            self._store.set(key, result.encode(), window)
        return result
