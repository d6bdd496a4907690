"""The ceiling: a lock-step blocking socket and the C parser, doing the same commands with no bus around them."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import hiredis

#: Commands in one write, and entries in one read.
BATCH = 500

# hiredis declares a tuple of one word.
_pack = cast("Callable[[tuple[str | bytes, ...]], bytes]", hiredis.pack_command)


def pack(*words: str | bytes) -> bytes:
    """Write one command."""
    return _pack(words)


class Bare:
    """One blocking connection."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, packed: bytes, replies: int = 1) -> list[Any]:
        """Send commands, wait for their replies.

        Raises:
            RuntimeError: the server refused one.
        """
        self._socket.sendall(packed)
        answers: list[Any] = []
        while len(answers) < replies:
            answer = self._reader.gets()
            if answer is False:
                self._reader.feed(self._socket.recv(1 << 20))
            elif isinstance(answer, Exception):
                raise RuntimeError(f"the server refused a command: {answer}")
            else:
                answers.append(answer)
        return answers


def append(bare: Bare, commands: Sequence[bytes], count: int) -> None:
    """Send `count` packed commands, taken from `commands` in turns, 500 a write."""
    period = list(commands) * (math.lcm(BATCH, len(commands)) // len(commands))
    writes = [b"".join(period[start : start + BATCH]) for start in range(0, len(period), BATCH)]
    whole, rest = divmod(count, BATCH)
    for number in range(whole):
        bare.ask(writes[number % len(writes)], BATCH)
    if rest:
        bare.ask(b"".join(period[:rest]), rest)


def consume(bare: Bare, stream: str, group: str, count: int) -> float:
    """Read and ack `count` entries, 500 at a time, without decoding them; return when the last ack was answered.

    The group exists. Waits for entries that are not there yet.
    """
    read = pack("XREADGROUP", "GROUP", group, "c", "COUNT", str(BATCH), "BLOCK", "10000", "STREAMS", stream, ">")
    done = 0
    while done < count:
        (answer,) = bare.ask(read)
        entries = answer[0][1]
        bare.ask(pack("XACK", stream, group, *[entry[0] for entry in entries]))
        done += len(entries)
    return time.monotonic()
