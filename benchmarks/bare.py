"""The ceiling: a lock-step blocking socket and the C parser, doing the same commands with no bus around them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, cast

import hiredis

#: Commands in one write.
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

    def ask(self, packed: bytes, replies: int = 1) -> list[Any]:
        """Send commands, wait for their replies."""
        self._socket.sendall(packed)
        answers: list[Any] = []
        while len(answers) < replies:
            answer = self._reader.gets()
            if answer is False:
                self._reader.feed(self._socket.recv(1 << 20))
            else:
                answers.append(answer)
        return answers

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def publish(bare: Bare, stream: str, body: bytes, count: int) -> None:
    """Append `count` entries, 500 pre-packed commands a write."""
    packed = pack("XADD", stream, "*", "data", body) * BATCH
    for _ in range(count // BATCH):
        bare.ask(packed, BATCH)


def consume(bare: Bare, stream: str, group: str, count: int) -> None:
    """Read and ack `count` entries of a new group, 500 at a time, without decoding them."""
    bare.ask(pack("XGROUP", "CREATE", stream, group, "0"))
    read = pack("XREADGROUP", "GROUP", group, "c", "COUNT", str(BATCH), "STREAMS", stream, ">")
    done = 0
    while done < count:
        (answer,) = bare.ask(read)
        entries = answer[0][1]
        bare.ask(pack("XACK", stream, group, *[entry[0] for entry in entries]))
        done += len(entries)
