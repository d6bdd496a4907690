"""What a notice says of streams that were born: publishers write it, stream finders read it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

#: Bytes of names in one notice; of more streams at once it names none.
MOST_NAMES = 16_384


def write_births(streams: Sequence[str]) -> bytes:
    """Return the body of a notice that streams were born: their keys, or nothing where those are too many."""
    body = "\n".join(streams).encode()
    return body if len(body) <= MOST_NAMES else b""


def read_births(body: bytes) -> list[str]:
    """Return the keys in such a notice; none where it names none, so that the directory has to be read."""
    try:
        return [name for name in body.decode().split("\n") if name]
    except UnicodeDecodeError:
        return []
