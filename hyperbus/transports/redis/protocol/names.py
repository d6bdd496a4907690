"""Names that other programs gave to groups and consumers. Any bytes will do for a server."""

from __future__ import annotations


def name_of(name: bytes) -> str:
    r"""Return a name as text. What is not UTF-8 becomes escapes such as `\xff`, which no name of hyperbus has."""
    return name.decode(errors="backslashreplace")
