"""Lua scripts by name, run by their digest; the server is sent the text only where it does not know it yet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from typing import Any

from hyperbus.transports.redis.protocol.commands import PIECE_BYTES, PIECE_ENTRIES, pack_all

#: The keys of a call, and its other arguments.
Arguments = tuple[Sequence[str], Sequence[Any]]

#: Ids that one script looks at: a server does nothing else while a script runs.
SCRIPT_IDS = 100
#: Entries that one script moves with their bytes.
SCRIPT_ENTRIES = 50


class Script:
    """A script beside this module, in `scripts/`; what it takes and returns is said at its top. It does no I/O."""

    def __init__(self, name: str) -> None:
        self._text = files("hyperbus.transports.redis").joinpath("scripts", f"{name}.lua").read_bytes()
        self._digest = hashlib.sha1(self._text, usedforsecurity=False).hexdigest()

    def pack(self, calls: Sequence[Arguments]) -> bytes:
        """Write calls for a server that knows the script."""
        return _pack("EVALSHA", self._digest, calls)

    def pack_teaching(self, calls: Sequence[Arguments]) -> bytes:
        """Write calls for a server that may not know the script. EVAL teaches it, so that one of them is enough."""
        return _pack("EVAL", self._text, calls[:1]) + _pack("EVALSHA", self._digest, calls[1:])

    def pack_pieces(self, calls: Iterable[Arguments]) -> Iterator[tuple[bytes, int]]:
        """Write calls in pieces; yield each with its number of calls. No piece needs the server to know the script."""
        part: list[Arguments] = []
        size = 0
        for call in calls:
            part.append(call)
            size += sum(len(word) for word in call[1] if isinstance(word, bytes))
            if size >= PIECE_BYTES or len(part) >= PIECE_ENTRIES:
                yield self.pack_teaching(part), len(part)
                part, size = [], 0
        if part:
            yield self.pack_teaching(part), len(part)


def slices(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Cut a sequence into pieces of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


def flags(replies: list[Any]) -> list[bool]:
    """Read the replies of scripts that each return a list of 1 or 0, one after the other."""
    return [bool(flag) for reply in replies for flag in reply]


def words_of(items: Sequence[Sequence[Any]]) -> Iterator[Any]:
    """Write pairs or triples one after the other."""
    return (word for item in items for word in item)


def _pack(command: str, script: str | bytes, calls: Sequence[Arguments]) -> bytes:
    return pack_all([(command, script, len(keys), *keys, *arguments) for keys, arguments in calls])
