"""A server as a transport: its connections, and the check that it is new enough."""

from __future__ import annotations

from hyperbus.clock import Seconds
from hyperbus.errors import UnsupportedServerError
from hyperbus.transport import Records, Streams
from hyperbus.transports.keys import record_key
from hyperbus.transports.redis.command_runner import CommandRunner
from hyperbus.transports.redis.connection.address import Address
from hyperbus.transports.redis.connection.eras import Eras
from hyperbus.transports.redis.connection.reconnecting import ReconnectingConnection
from hyperbus.transports.redis.durability import DurableAppends
from hyperbus.transports.redis.protocol.server_facts import facts_of
from hyperbus.transports.redis.reader import RedisReader
from hyperbus.transports.redis.records import RedisRecords
from hyperbus.transports.redis.streams import RedisStreams

_REDIS_FLOOR = (7, 0)
_VALKEY_FLOOR = (7, 2)


class RedisTransport:
    """Implements `hyperbus.transport.Transport` for `redis://`, `rediss://` and `unix://`.

    One connection carries commands, one appends, one appends that wait for replicas or the disk, and each reader has
    its own.

    Args:
        url: where the server is, and who logs in.
        prefix: in the names of records.
        connect_timeout: how long connecting and logging in may take.
        command_timeout: how long the server may take to answer.

    Raises:
        InvalidSettingError: the URL cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "events",
        connect_timeout: Seconds = 5.0,
        command_timeout: Seconds = 5.0,
    ) -> None:
        self._url = url
        self._prefix = prefix
        self._connect_timeout = connect_timeout
        self._command_timeout = command_timeout
        self._address = Address(url, connect_timeout=connect_timeout)
        self.description = self._address.description
        self._eras = Eras()
        self._connection = self._new_connection()
        self._append_connection = self._new_connection()
        self._durable_connection = self._new_connection()
        self._connections = (self._connection, self._append_connection, self._durable_connection)
        self._commands = CommandRunner(self._connection)
        self._readers: set[RedisReader] = set()
        self.streams: Streams = RedisStreams(
            self._commands, self._append_connection, DurableAppends(self._durable_connection)
        )
        self.records: Records = RedisRecords(self._commands, prefix)

    @property
    def era(self) -> int:
        """How often the server turned out to have another history."""
        return self._eras.current

    async def open(self) -> None:
        """Connect, and check that the server can be used."""
        for connection in self._connections:
            connection.reopen()
        # A server that is still loading answers INFO, but no question about a key.
        [info, _] = await self._commands.run([("INFO", "server"), ("EXISTS", record_key(self._prefix, ""))])
        check_version(info.decode(errors="replace"), self.description)

    async def close(self) -> None:
        """Close every connection, readers too. Twice is safe."""
        for reader in list(self._readers):
            await reader.close()
        for connection in self._connections:
            await connection.close()

    def open_reader(self) -> RedisReader:
        """Return a new reader; it connects at its first use."""
        reader = RedisReader(self._new_connection(identify=True), self._commands, self._readers.discard)
        self._readers.add(reader)
        return reader

    def separate(self) -> RedisTransport:
        """Return another transport to the same server, unopened."""
        return RedisTransport(
            self._url,
            prefix=self._prefix,
            connect_timeout=self._connect_timeout,
            command_timeout=self._command_timeout,
        )

    def _new_connection(self, *, identify: bool = False) -> ReconnectingConnection:
        return ReconnectingConnection(
            self._address,
            connect_timeout=self._connect_timeout,
            command_timeout=self._command_timeout,
            eras=self._eras,
            identify=identify,
        )


def check_version(info: str, place: str) -> None:
    """Read the reply to INFO server.

    Raises:
        UnsupportedServerError: the server is too old.
    """
    facts = facts_of(info.encode())
    name, floor = ("Valkey", _VALKEY_FLOOR) if facts.is_valkey else ("Redis", _REDIS_FLOOR)
    if facts.numbers < floor:
        raise UnsupportedServerError(
            f"{place} is {name} {facts.version or 'of an unknown version'}; "
            f"hyperbus needs Redis 7.0 or Valkey 7.2, or newer"
        )
