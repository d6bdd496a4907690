"""How commands are written as bytes, the frequent ones fast. Pure: no connection, no replies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from typing import Any, cast

import hiredis

from hyperbus.clock import Seconds
from hyperbus.transport import NewEntry
from hyperbus.transport.appends import FIRST_PIECE, PIECE
from hyperbus.transports.redis.protocol.names import bytes_of

#: A batch is cut here, so that a broken connection leaves few entries uncertain and buffers stay small.
PIECE_BYTES = 512 * 1024
PIECE_ENTRIES = 1_000

# hiredis declares a tuple of one word.
_pack_quickly = cast("Callable[[tuple[Any, ...]], bytes]", hiredis.pack_command)


def _pack(words: tuple[Any, ...]) -> bytes:
    try:
        return _pack_quickly(words)
    except UnicodeEncodeError:  # a name that is no UTF-8; see `names.py`
        return _pack_quickly(tuple(bytes_of(word) if isinstance(word, str) else word for word in words))


def pack(*words: str | bytes | float) -> bytes:
    """Write one command."""
    return _pack(words)


def pack_all(commands: Sequence[tuple[Any, ...]]) -> bytes:
    """Write commands one after the other."""
    return b"".join(map(_pack, commands))


def milliseconds(duration: Seconds) -> int:
    """Turn a duration into whole milliseconds; never 0, which servers take for "forever" or refuse."""
    return max(1, round(duration * 1000))


def pack_appends(entries: Iterable[NewEntry]) -> Iterator[tuple[bytes, int]]:
    """Write XADDs in pieces; yield each with its number of commands. Entries are taken a piece at a time.

    Those that are all there already, a list, need no small pieces.
    """
    sizes = repeat(PIECE_ENTRIES) if isinstance(entries, list) else chain([FIRST_PIECE], repeat(PIECE))
    heads: dict[tuple[str, bytes], _AppendHeads] = {}
    last_stream, last_field, head = None, None, _AppendHeads("", b"")
    source = iter(entries)
    while piece := list(islice(source, next(sizes))):
        parts: list[bytes] = []
        add = parts.append
        size = 0
        for stream, field, body in piece:
            # Batches are mostly of one stream: identity is cheaper than a look-up.
            if stream is not last_stream or field is not last_field:
                head = heads.get((stream, field)) or heads.setdefault((stream, field), _AppendHeads(stream, field))
                last_stream, last_field = stream, field
            length = len(body)
            add(head[length])
            add(body)
            add(b"\r\n")
            size += length
            if size >= PIECE_BYTES:
                yield b"".join(parts), len(parts) // 3
                parts.clear()
                size = 0
        if parts:
            yield b"".join(parts), len(parts) // 3


class _AppendHeads(dict[int, bytes]):
    """XADDs of one stream and field up to their bodies, by the length of the body."""

    def __init__(self, stream: str, field: bytes) -> None:
        super().__init__()
        self._start = b"*5\r\n$4\r\nXADD\r\n" + _words(stream.encode(), b"*", field) + b"$"

    def __missing__(self, length: int) -> bytes:
        head = self[length] = b"%b%d\r\n" % (self._start, length)
        return head


class GroupRead:
    """XREADGROUP > for one consumer and one set of streams, as two prepared pieces."""

    def __init__(self, group: str, consumer: str, streams: tuple[str, ...]) -> None:
        self.names = {stream.encode(): stream for stream in streams}
        self._start = _words(b"XREADGROUP", b"GROUP", group.encode(), consumer.encode(), b"COUNT")
        self._end = _words(b"STREAMS", *self.names, *[b">"] * len(self.names))
        self._length = 7 + 2 * len(self.names)

    def pack(self, count: int, block: Seconds) -> bytes:
        """Write the command; `block` of 0 does not wait."""
        number = b"%d" % count
        if block <= 0:
            return b"*%d\r\n%b$%d\r\n%b\r\n%b" % (self._length, self._start, len(number), number, self._end)
        wait = b"%d" % milliseconds(block)
        return b"*%d\r\n%b$%d\r\n%b\r\n$5\r\nBLOCK\r\n$%d\r\n%b\r\n%b" % (
            self._length + 2,
            self._start,
            len(number),
            number,
            len(wait),
            wait,
            self._end,
        )


def _words(*words: bytes) -> bytes:
    return b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
