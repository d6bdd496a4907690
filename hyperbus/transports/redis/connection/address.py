"""Where a server is: reads `redis://`, `rediss://` and `unix://` URLs. It never shows a user name or a password."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import connection as redis_py
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from hyperbus.clock import Seconds
from hyperbus.errors import InvalidSettingError
from hyperbus.log_values import visible

#: What redis-py opens for us.
Opened = redis_py.Connection | redis_py.SSLConnection | redis_py.UnixDomainSocketConnection

#: Options that a URL may carry in its query, besides `ssl_...`. Time limits are settings of hyperbus.
_OPTIONS = frozenset({"db", "username", "password", "client_name"})
_PLACE = frozenset({"host", "port", "path", "connection_class"})


class Address:
    """A server, and how to log in to it.

    Attributes:
        description: the URL without user, password and options, for people.
    """

    def __init__(self, url: str, *, connect_timeout: Seconds) -> None:
        """Read a URL.

        Raises:
            InvalidSettingError: it cannot be used.
        """
        self.description = _describe(url)
        self._connect_timeout = connect_timeout
        _check_login(url, self.description)
        try:
            options: dict[str, Any] = dict(redis_py.parse_url(url))
        except ValueError as error:
            raise InvalidSettingError(f"{self.description} is not a usable URL: {_safe(error, url)}") from None
        unknown = sorted(name for name in options.keys() - _PLACE - _OPTIONS if not name.startswith("ssl_"))
        if unknown:
            raise InvalidSettingError(
                f"{self.description}: unknown options {', '.join(unknown)}; a URL takes "
                f"{', '.join(sorted(_OPTIONS))} and ssl_*; time limits are settings (see docs/settings.md)"
            )
        self._class: type[Opened] = options.pop("connection_class", redis_py.Connection)
        if self._class is not redis_py.UnixDomainSocketConnection:
            options["socket_keepalive"] = True
        self._options = options
        self._check(url)

    def connection(self) -> Opened:
        """Return a new connection of redis-py's, not yet connected."""
        return self._class(
            **self._options,
            protocol=2,
            decode_responses=False,
            # Repeating is the caller's decision: redis-py would send a command twice without saying so.
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=self._connect_timeout,
            health_check_interval=0,
        )

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        database = parts.path.strip("/")
        if parts.scheme == "unix" and not self._options.get("path"):
            raise InvalidSettingError(f"{self.description}: name the socket, as in unix:///run/redis.sock")
        if parts.scheme != "unix" and database and not database.isdecimal():
            raise InvalidSettingError(f"{self.description}: the database {database!r} has to be a number")
        try:
            self.connection()
        except Exception as error:  # noqa: BLE001 - whatever redis-py makes of a bad option
            raise InvalidSettingError(
                f"{self.description} has an option that cannot be used: {_safe(error, url)}"
            ) from None


def _check_login(url: str, description: str) -> None:
    """Check that user and password end where a reader of URLs takes them to end.

    Raises:
        InvalidSettingError: they hold a character that ends them before their @.
    """
    if any(character in _login_and_place(url)[0] for character in "/?#"):
        quoted = ", ".join(f"%{ord(character):02X} for {character}" for character in "/?#@%")
        raise InvalidSettingError(
            f"{description}: the user name or the password holds a character that has a meaning in URLs; write {quoted}"
        )


def _login_and_place(url: str) -> tuple[str, str]:
    """Return what stands before the @ of a URL and what behind, whatever characters a password holds unquoted."""
    scheme, _, rest = url.partition("://")
    if scheme == "unix" and rest.startswith("/"):
        return "", rest
    head, _, query = rest.partition("?")
    names = [option.partition("=")[0] for option in query.split("&")]
    if "@" in query and not all(name in _OPTIONS or name.startswith("ssl_") for name in names):
        login, _, place = rest.rpartition("@")  # the ? was no beginning of options
        return login, place
    login, _, place = head.rpartition("@")
    return login, place


def _describe(url: str) -> str:
    """Return a URL without its secrets; as little as its scheme where the rest cannot be read."""
    scheme, place = url.partition("://")[0], _login_and_place(url)[1]
    try:
        parts = urlsplit(f"{scheme}://{place}")
        port = parts.port
    except ValueError:
        return f"{scheme}://..."
    if scheme == "unix":
        return f"unix://{visible(parts.path)}"
    host = parts.hostname or "localhost"
    host = f"[{host}]" if ":" in host else host
    path = parts.path if parts.path.strip("/") else ""
    return visible(f"{scheme}://{host}:{port or 6379}{path}")


def _safe(error: Exception, url: str) -> str:
    """Return what an error says, unless the URL has secrets, of which it could quote a part."""
    if "@" not in url and "?" not in url:
        return str(error)
    return "check its user, password, host, port and options (quote special characters)"
