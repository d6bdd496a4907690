"""Lua scripts by name, run by their digest; the server is sent the text only where it does not know it yet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from typing import Any

from hyperbus.transports.redis.connection.reconnecting import Wire
from hyperbus.transports.redis.protocol.commands import CHUNK_BYTES, CHUNK_ENTRIES, pack_all
from hyperbus.transports.redis.protocol.replies import Refusal

#: The keys of a call, and its other arguments.
Arguments = tuple[Sequence[str], Sequence[Any]]


class Script:
    """A script beside this module, in `scripts/`; what it takes and returns is said at its top."""

    def __init__(self, name: str) -> None:
        self._text = files("hyperbus.transports.redis").joinpath("scripts", f"{name}.lua").read_bytes()
        self._digest = hashlib.sha1(self._text, usedforsecurity=False).hexdigest()

    async def run(self, wire: Wire, calls: Sequence[Arguments]) -> list[Any]:
        """Run the script once for each of `calls`, in one round trip; return what each returned.

        Raises:
            HyperbusError: one of them was refused.
        """
        if not calls:
            return []
        replies = await wire.call(self._pack("EVALSHA", self._digest, calls), len(calls))
        unknown = [i for i, reply in enumerate(replies) if type(reply) is Refusal and str(reply).startswith("NOSCRIPT")]
        if unknown:
            # A server that was restarted or failed over has lost its scripts.
            again = await wire.call(self._pack_teaching([calls[i] for i in unknown]), len(unknown))
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return wire.check(replies)

    def pack_chunks(self, calls: Iterable[Arguments]) -> Iterator[tuple[bytes, int]]:
        """Write calls in chunks; yield each with its number of calls. No chunk needs the server to know the script."""
        part: list[Arguments] = []
        size = 0
        for call in calls:
            part.append(call)
            size += sum(len(word) for word in call[1] if isinstance(word, bytes))
            if size >= CHUNK_BYTES or len(part) >= CHUNK_ENTRIES:
                yield self._pack_teaching(part), len(part)
                part, size = [], 0
        if part:
            yield self._pack_teaching(part), len(part)

    def _pack_teaching(self, calls: Sequence[Arguments]) -> bytes:
        # EVAL also teaches the server the script, so that one of them is enough.
        return self._pack("EVAL", self._text, calls[:1]) + self._pack("EVALSHA", self._digest, calls[1:])

    def _pack(self, command: str, script: str | bytes, calls: Sequence[Arguments]) -> bytes:
        return pack_all([(command, script, len(keys), *keys, *arguments) for keys, arguments in calls])
