"""Names that other programs gave to groups and consumers. Any bytes will do for a server."""

from __future__ import annotations


def name_of(name: bytes) -> str:
    """Return a name as text, of which `pack` makes the same bytes again, whether they are UTF-8 or not."""
    return name.decode(errors="surrogateescape")


def bytes_of(word: str) -> bytes:
    """Return the bytes of a word of a command, which may be a name."""
    return word.encode(errors="surrogateescape")
