"""The port that a supervisor binds for all its processes."""

from __future__ import annotations

import errno
import socket

from hyperbus.errors import InvalidSettingError, PortInUseError

#: What says that another port would do.
_OTHER_PORT = (errno.EADDRINUSE, errno.EACCES)


def listen(host: str, port: int) -> socket.socket:
    """Listen for WebSocket clients.

    Raises:
        PortInUseError: the port is taken, or may not be used.
        InvalidSettingError: the host is no address of this machine.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        families = [family for family, *_ in found]
        family = socket.AF_INET if socket.AF_INET in families else families[0]
        return socket.create_server((host, port), family=family, backlog=128, reuse_port=False)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        told = f"cannot listen for WebSocket clients on {in_url(host)}:{port}: {reason}"
        if getattr(error, "errno", None) in _OTHER_PORT:
            raise PortInUseError(f"{told}; say --websocket-port 0 for a free one") from error
        raise InvalidSettingError(f"{told}; choose an address of this machine with --host") from error


def in_url(host: str) -> str:
    """Return a host as URLs write it: an address of IPv6 stands in brackets."""
    return f"[{host}]" if ":" in host else host
