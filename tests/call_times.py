"""How long calls held a server, beside a call of a known length that tells how much of that was the machine."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any, Self

import redis

from tests.servers import Server

#: The longest that any call may hold a server that has a processor of its own, in microseconds.
LONGEST = 5_000
#: Always the same work; takes a server a millisecond or two.
KNOWN = "local sum = 0 for n = 1, 100000 do sum = sum + n end return sum"
#: Seconds from one such call to the next.
PAUSE = 0.01
#: So many calls may meet what no known call met, if they are no longer than so many times the limit.
FORGIVEN, NO_LONGER = 2, 4


class CallTimes:
    """Notes every call on a server while it is entered. A server's clock counts also the time that others ran."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._call_again_and_again)
        self._calls: list[tuple[int, bytes]] = []
        self._calls_made = 0

    def __enter__(self) -> Self:
        with suppress(AttributeError, PermissionError):  # nothing else may interrupt it, where we may say so
            os.sched_setscheduler(self._server.pid, os.SCHED_FIFO, os.sched_param(10))
        self._server.command("CONFIG", "SET", "slowlog-log-slower-than", 0, "slowlog-max-len", 1_000_000)
        self._server.command("SLOWLOG", "RESET")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._server.command("CONFIG", "SET", "slowlog-log-slower-than", -1)
        with redis.Redis(port=self._server.port) as client:
            found: list[dict[str, Any]] = client.slowlog_get(1_000_000)
        self._calls = [(call["duration"], call["command"]) for call in found]

    def too_long(self) -> list[tuple[int, bytes]]:
        """Return the calls that took too long: microseconds, and what was asked.

        As much as the machine added to the worst of the known calls it may have added to each of two parts of others.
        """
        known = [duration for duration, words in self._calls if _is_known(words)]
        others = sorted(
            ((duration, words[:60]) for duration, words in self._calls if not _is_known(words)), reverse=True
        )
        limit = LONGEST + 2 * (max(known) - min(known))
        print(f"{len(others)} calls, {others[:3]}; known ones {min(known)} to {max(known)} us; limit {limit} us")
        assert len(known) > 10, "too few to judge by"
        too_long = [call for call in others if call[0] > limit]
        is_chance = len(too_long) <= FORGIVEN and too_long[:1] < [(NO_LONGER * limit, b"")]
        return [] if is_chance else too_long

    def _call_again_and_again(self) -> None:
        client = redis.Redis(port=self._server.port)
        while not self._over.wait(PAUSE):
            client.eval(KNOWN, 0)
            self._calls_made += 1
        client.close()


def _is_known(words: bytes) -> bool:
    return words.startswith(b"EVAL " + KNOWN[:30].encode())
