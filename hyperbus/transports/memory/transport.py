"""The memory transport: one store, handed to its streams, records and readers, and the losses a test may cause."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbus.clock import Clock, SystemClock
from hyperbus.transports.memory.reader import MemoryReader
from hyperbus.transports.memory.records import MemoryRecords
from hyperbus.transports.memory.session import Session
from hyperbus.transports.memory.store import Saved, Store
from hyperbus.transports.memory.stream import parse_id
from hyperbus.transports.memory.streams import MemoryStreams


class MemoryTransport:
    """Implements `hyperbus.transport.Transport`. The data lives as long as the transports made from one another.

    Its methods that delete imitate what happens to a server behind the bus's back; they are for tests.

    Args:
        prefix: in the names of records.
        clock: what ids, idle times and lifetimes go by.
        store: the data of another memory transport, to share it; None makes a new one.
    """

    description = "memory://"

    def __init__(self, prefix: str = "events", clock: Clock | None = None, *, store: Store | None = None) -> None:
        self._prefix = prefix
        self._store = Store(clock or SystemClock()) if store is None else store
        self._session = Session(self._store)
        self._readers: list[MemoryReader] = []
        self.streams = MemoryStreams(self._store, self._session)
        self.records = MemoryRecords(self._store, self._session, prefix)

    async def open(self) -> None:
        """Make it usable, again if it was closed."""
        self._session.is_closed = False

    async def close(self) -> None:
        """Make it unusable, and close every reader. The data stays. Twice is safe."""
        self._session.is_closed = True
        for reader in self._readers:
            reader.shut()
        self._readers.clear()

    def open_reader(self) -> MemoryReader:
        """Return a new reader."""
        reader = MemoryReader(self._store, self._session, self._forget)
        self._readers.append(reader)
        return reader

    def separate(self) -> MemoryTransport:
        """Return another transport over the same data, unopened; it may be used from another thread."""
        return MemoryTransport(self._prefix, store=self._store)

    def delete_stream(self, stream: str) -> bool:
        """Lose a stream with its groups (DEL)."""
        with self._store.lock:
            return self._store.delete(stream)

    def delete_entries(self, stream: str, ids: Sequence[bytes]) -> int:
        """Lose entries; pending lists keep their ids (XDEL)."""
        with self._store.lock:
            found = self._store.stream(stream)
            return 0 if found is None else found.delete([parse_id(entry_id) for entry_id in ids])

    def destroy_group(self, stream: str, group: str) -> bool:
        """Lose a group with its pending list (XGROUP DESTROY)."""
        with self._store.lock:
            found = self._store.find_group(stream, group)
            if found is None:
                return False
            del found[0].groups[group]
            self._store.notify(stream)
            return True

    def flush(self) -> None:
        """Lose everything (FLUSHALL)."""
        with self._store.lock:
            self._store.flush()

    @property
    def era(self) -> int:
        """How often the data was taken back; see `restore`."""
        return self._store.era

    def save(self) -> Saved:
        """Return a copy of everything (SAVE)."""
        with self._store.lock:
            return self._store.save()

    def restore(self, saved: Saved) -> None:
        """Lose everything that was done since `save` (a restart, or a failover)."""
        with self._store.lock:
            self._store.restore(saved)

    def append_as(self, stream: str, entry_id: bytes, fields: Sequence[bytes]) -> None:
        """Append an entry with an id of one's own, above all others (XADD)."""
        with self._store.lock:
            self._store.make_stream(stream).append_as(parse_id(entry_id), fields)
            self._store.notify(stream)

    def set_value(self, key: str, value: bytes) -> None:
        """Put something that is not a stream where one may be expected (SET)."""
        with self._store.lock:
            self._store.set(key, value)

    def _forget(self, reader: MemoryReader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)
