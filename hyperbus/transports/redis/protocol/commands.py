"""How commands are written as bytes, the frequent ones fast. Pure: no connection, no replies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from typing import Any, Final, cast

import hiredis

from hyperbus.clock import Seconds
from hyperbus.transport import NewEntry
from hyperbus.transport.appends import FIRST_PIECE, PIECE

#: Which commands may be asked again when it is not known whether the server did them. Nothing here repeats by itself.
REPEATABLE: Final[dict[str, str]] = {
    "XADD": "no: a second entry; the caller is told PublishUncertain",
    "XREADGROUP >": "no: the first delivery is pending, and read_pending finds it",
    "XREADGROUP id": "yes: the same entries, their delivery counts one higher",
    "XREAD, XRANGE, XPENDING, XINFO, SCAN": "yes: they change nothing",
    "XACK": "yes: the second answer counts 0",
    "XGROUP CREATE": "yes: the second answer is BUSYGROUP",
    "claim.lua": "yes: the second answer leaves out what the first moved; read_pending finds it",
    "set_delivery_counts.lua": "yes: the same numbers again",
    "dead_letter.lua": "yes: what is acked is not appended again; the second answer says False",
    "remove_consumer.lua": "yes: the second answer counts 0",
    "append_once.lua": "yes, within the window: the same id again; the caller is told PublishUncertain all the same",
    "XADD MAXLEN": "yes: a second notice says nothing new",
    "hand_over.lua": "yes: the second answer says False for what the first moved",
    "schedule_retries.lua": "yes: the same counts and times again",
    "suspect.lua": "no: it counts once more; the caller reads suspicions first",
    "park.lua": "yes: what is acked is not parked again; the second answer says False",
    "take_parked.lua": "yes: what the first took is hidden until its lease is over, and then taken again",
    "renew_parked.lua": "yes: the same lease again",
    "finish_parked.lua, reschedule_parked.lua, bury_parked.lua": "yes: the second answer says False",
    "save_checkpoint.lua": "yes: the same checkpoint, or a later one",
    "destroy_group.lua": "yes: it goes on where the first ended; the second answer may be False",
    "trim.lua": "yes: the second answer counts what the first left",
    "floors.lua, oldest.lua, count_between.lua, last_id.lua": "yes: they change nothing",
    "ZMSCORE, HMGET, GET, ZCARD, MEMORY USAGE, INFO, CONFIG GET": "yes: they change nothing",
    "HDEL": "yes: the second answer counts 0",
    "WAIT, WAITAOF": "no: on another connection they speak of nothing; the caller is told NotDurable",
    "SET, PEXPIRE, DEL, ZADD NX, ZREM": "yes: the same state; counts may be lower",
    "compare_and_set.lua": "yes, but the second answer may be False though the first one did it: look with get",
}

#: A batch is cut here, so that a broken connection leaves few entries uncertain and buffers stay small.
CHUNK_BYTES = 512 * 1024
CHUNK_ENTRIES = 1_000

# hiredis declares a tuple of one word.
_pack = cast("Callable[[tuple[Any, ...]], bytes]", hiredis.pack_command)


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
    sizes = repeat(CHUNK_ENTRIES) if isinstance(entries, list) else chain([FIRST_PIECE], repeat(PIECE))
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
            if size >= CHUNK_BYTES:
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
