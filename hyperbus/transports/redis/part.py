"""What every part of the streams on a server shares: one way to run commands, and the connections of appends."""

from __future__ import annotations

from hyperbus.transports.redis.command_runner import CommandRunner
from hyperbus.transports.redis.connection.reconnecting import ReconnectingConnection
from hyperbus.transports.redis.durability import DurableAppends


class Part:
    """Some of the methods of the streams.

    Args:
        commands: for everything but appends.
        append_connection: for appends, so that large ones do not hold up acks.
        durable_appends: appends that wait for replicas or the disk, on a connection where they hold up no other ones.
    """

    def __init__(
        self, commands: CommandRunner, append_connection: ReconnectingConnection, durable_appends: DurableAppends
    ) -> None:
        self._commands = commands
        self._append_connection = append_connection
        self._durable_appends = durable_appends
