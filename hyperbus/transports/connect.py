"""From a URL to the transport that serves it. Only the chosen one is loaded: each brings its libraries."""

from __future__ import annotations

from hyperbus.clock import Seconds
from hyperbus.errors import InvalidSettingError
from hyperbus.transport import Transport

#: How the URLs of each kind of place begin.
SCHEMES = ("redis://", "rediss://", "unix://", "embedded://", "memory://")


def connect(url: str, *, prefix: str, connect_timeout: Seconds, command_timeout: Seconds) -> Transport:
    """Return the transport for a URL, unopened.

    Raises:
        InvalidSettingError: the URL cannot be used.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme in {"redis", "rediss", "unix"}:
        from hyperbus.transports.redis.transport import RedisTransport

        return RedisTransport(url, prefix=prefix, connect_timeout=connect_timeout, command_timeout=command_timeout)
    if separator and scheme == "embedded":
        if not rest:
            raise InvalidSettingError(
                "embedded:// names no folder: write embedded://.hyperbus, or embedded:///an/absolute/one"
            )
        from hyperbus.transports.embedded.transport import EmbeddedTransport

        return EmbeddedTransport(rest, prefix=prefix, connect_timeout=connect_timeout, command_timeout=command_timeout)
    if separator and scheme == "memory":
        from hyperbus.transports.memory.transport import MemoryTransport

        return MemoryTransport(prefix)
    # What was given may hold a password, so it is not shown.
    raise InvalidSettingError(f"this is not the URL of a bus; it has to begin with one of {', '.join(SCHEMES)}")
