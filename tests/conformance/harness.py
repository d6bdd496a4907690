"""What a claim needs and the contract does not offer: losses behind the transport's back, and a look at blocked reads."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Protocol

from hyperbus.transport import NewEntry, Reader, Transport
from hyperbus.transports.memory import MemoryTransport
from hyperbus.transports.memory.stream import ZERO, Group
from tests.servers import Server

#: No claim waits longer for what has to happen.
DEADLINE = 10.0


class Place(Protocol):
    """A kind of storage, seen from behind."""

    def transport(self, prefix: str) -> Transport: ...

    def delete_stream(self, stream: str) -> None: ...

    def delete_entries(self, stream: str, ids: Sequence[bytes]) -> None: ...

    def destroy_group(self, stream: str, group: str) -> None: ...

    def create_group(self, stream: str, group: bytes) -> None: ...

    def read_as(self, stream: str, group: str, consumer: bytes) -> None:
        """Let a consumer of any name take all there is."""

    def set_value(self, key: str, value: bytes) -> None: ...

    def has_key(self, key: str) -> bool: ...

    def add_raw(self, stream: str, fields: Sequence[bytes]) -> None:
        """Append an entry with any fields."""

    def is_blocked(self, reader: Reader) -> bool: ...


class MemoryPlace:
    """Memory, seen from behind."""

    def __init__(self) -> None:
        self._origin = MemoryTransport()

    def transport(self, prefix: str) -> Transport:
        return MemoryTransport(prefix, store=self._origin._store)

    def delete_stream(self, stream: str) -> None:
        self._origin.delete_stream(stream)

    def delete_entries(self, stream: str, ids: Sequence[bytes]) -> None:
        self._origin.delete_entries(stream, ids)

    def destroy_group(self, stream: str, group: str) -> None:
        self._origin.destroy_group(stream, group)

    def create_group(self, stream: str, group: bytes) -> None:
        name = group.decode(errors="surrogateescape")
        self._origin._store.make_stream(stream).groups[name] = Group(ZERO)

    def read_as(self, stream: str, group: str, consumer: bytes) -> None:
        log = self._origin._store.make_stream(stream)
        name = consumer.decode(errors="surrogateescape")
        log.groups[group].consumers.add(name)
        log.deliver(log.groups[group], name, 1_000, 0.0)

    def set_value(self, key: str, value: bytes) -> None:
        self._origin.set_value(key, value)

    def has_key(self, key: str) -> bool:
        return self._origin._store.find(key) is not None

    def add_raw(self, stream: str, fields: Sequence[bytes]) -> None:
        store = self._origin._store
        store.make_stream(stream).append(fields, store.clock.now())

    def is_blocked(self, reader: Reader) -> bool:
        return reader._waiter is not None  # type: ignore[attr-defined]


class ServerPlace:
    """A server, seen over a connection of the test's own."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def transport(self, prefix: str) -> Transport:
        from hyperbus.transports.redis.transport import RedisTransport

        return RedisTransport(self._server.url, prefix=prefix)

    def delete_stream(self, stream: str) -> None:
        self._server.command("DEL", stream)

    def delete_entries(self, stream: str, ids: Sequence[bytes]) -> None:
        self._server.command("XDEL", stream, *ids)

    def destroy_group(self, stream: str, group: str) -> None:
        self._server.command("XGROUP", "DESTROY", stream, group)

    def create_group(self, stream: str, group: bytes) -> None:
        self._server.command("XGROUP", "CREATE", stream, group, "0", "MKSTREAM")

    def read_as(self, stream: str, group: str, consumer: bytes) -> None:
        self._server.command("XREADGROUP", "GROUP", group, consumer, "STREAMS", stream, ">")

    def set_value(self, key: str, value: bytes) -> None:
        self._server.command("SET", key, value)

    def has_key(self, key: str) -> bool:
        return bool(self._server.command("EXISTS", key))

    def add_raw(self, stream: str, fields: Sequence[bytes]) -> None:
        self._server.command("XADD", stream, "*", *fields)

    def is_blocked(self, reader: Reader) -> bool:
        return int(self._server.command("INFO", "clients")["blocked_clients"]) > 0


class Harness:
    """An open transport, names that nobody else uses, and the losses it may suffer."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.prefix = f"t{uuid.uuid4().hex}"
        self.transport = place.transport(self.prefix)
        self.streams = self.transport.streams
        self.records = self.transport.records
        self.reader = self.transport.open_reader()

    def stream(self, name: str = "a") -> str:
        return f"{self.prefix}:{name}"

    async def add(self, stream: str, *bodies: bytes) -> list[bytes]:
        """Append entries; return their ids as they are read."""
        results = await self.streams.append([NewEntry(stream, b"data", body) for body in bodies])
        ids: list[bytes] = []
        for result in results:
            assert isinstance(result, str), result
            ids.append(result.encode())
        return ids

    async def group(self, *streams: str, after: bytes = b"0-0") -> None:
        """Create group `g`."""
        await self.streams.create_groups([(stream, "g", after) for stream in streams])

    async def take(self, *streams: str, consumer: str = "c1", count: int = 100) -> list[bytes]:
        """Have new entries delivered to a consumer of group `g`; return their ids."""
        read = await self.reader.read_group("g", consumer, streams, count=count, block=0)
        return [entry.id for _, entries in read for entry in entries]

    async def delivered(self, number: int, *, consumer: str = "c1") -> tuple[str, list[bytes]]:
        """Return a stream with that many entries, all pending with a consumer of group `g`."""
        stream = self.stream()
        await self.group(stream)
        await self.add(stream, *(b"%d" % index for index in range(number)))
        return stream, await self.take(stream, consumer=consumer)

    async def blocked(self, reader: Reader | None = None) -> None:
        """Wait until the reader is blocked."""
        await until(lambda: self.place.is_blocked(reader or self.reader))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, within the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.002)
