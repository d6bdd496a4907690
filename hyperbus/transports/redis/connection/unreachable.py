"""What to say of a server that could not be connected to: its own words, where it had any, and else what to look at."""

from __future__ import annotations

import asyncio

from redis.asyncio import connection as redis_py

from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, HyperbusError, ServerError
from hyperbus.transports.redis.connection.address import Opened
from hyperbus.transports.redis.protocol.replies import Refusal, error_of

#: How long a server may take to say why it lets nobody in: it does so at once, and hangs up.
_WORDS_WITHIN: Seconds = 0.5
_MOST_WORDS = 4_096
_ADVICE = "is the server running, and are host and port right?"
_TLS_ADVICE = "is the server running, are host and port right, and does it speak TLS? redis:// is without"
_NO_REDIS = "what answers there does not speak the Redis protocol; if it speaks TLS, write rediss://"
#: How redis-py says that a server which was reached has hung up.
_HUNG_UP = ("while reading from", "while writing to", "closed by server")
_TOO_MANY = "max number of clients"


async def unreachable(opened: Opened, place: str, problem: str) -> HyperbusError:
    """Return the error for a connection that could not be opened because of a `problem`."""
    if _TOO_MANY in problem:
        return BusUnavailable(f"{place} takes no more connections: {problem}; raise its maxclients")
    if "Protocol error" in problem:
        return BusUnavailable(f"cannot use {place}: {_NO_REDIS}")
    is_tls = isinstance(opened, redis_py.SSLConnection)
    if any(words in problem for words in _HUNG_UP) and not is_tls:
        said = await _words_of(opened)
        if said:
            return refusal_to_serve(said, place)
    return BusUnavailable(f"cannot reach {place}: {problem}; {_TLS_ADVICE if is_tls else _ADVICE}")


def refusal_to_serve(said: str, place: str) -> HyperbusError:
    """Return the error for what a server says instead of serving a connection."""
    if _TOO_MANY in said:
        return BusUnavailable(f"{place} takes no more connections: {said}; raise its maxclients")
    error = error_of(Refusal(said), place)
    return ServerError(f"{place} refused the connection: {said}") if type(error) is ServerError else error


async def _words_of(opened: Opened) -> str:
    """Return what a server says to a client that only listens; "" if it says nothing.

    Words that it said before were lost: a system forgets what came in when it learns that the other end has hung up.
    """
    try:
        async with asyncio.timeout(_WORDS_WITHIN):
            if isinstance(opened, redis_py.UnixDomainSocketConnection):
                reader, writer = await asyncio.open_unix_connection(opened.path)
            else:
                reader, writer = await asyncio.open_connection(opened.host, opened.port)
            try:
                said = await reader.read(_MOST_WORDS)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return ""
    line = said.split(b"\r\n")[0]
    return line[1:].decode(errors="replace") if line.startswith(b"-") else ""
