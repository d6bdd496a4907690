"""The data of a memory transport: keys of three types, their lifetimes, and who waits for which key.

Every transport made by `separate` shares one store, from any thread: all access is under `lock`.
"""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from threading import RLock
from typing import TypeVar

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import GroupNotFoundError, WrongTypeError
from hyperbus.transport import Parked
from hyperbus.transports.memory.stream import Group, Stream

#: Members with their times.
SortedSet = dict[str, float]


@dataclass(slots=True)
class Held:
    """A parked entry, who took it ("" for nobody), and when it can be taken next."""

    parked: Parked
    holder: str
    free_at: float


class ParkedEntries(dict[bytes, Held]):
    """The parked entries of a group, by id."""


class Suspects(dict[bytes, int]):
    """How often entries of a group were begun alone, by id."""


Value = Stream | bytes | SortedSet | ParkedEntries | Suspects
_Kind = TypeVar("_Kind", Stream, bytes, ParkedEntries, Suspects)


class Waiter:
    """One blocked read. It may be woken from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> None:
        """End the wait; once is as good as twice."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            self._finish()
        else:
            # A loop that was closed has nobody left to wake.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


#: A copy of all keys, and of when they end.
Saved = tuple[dict[str, Value], dict[str, float], list[tuple[float, str]]]


class Store:
    """A keyspace. Its methods expect the caller to hold `lock`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = RLock()
        #: How often the data was taken back to what they were before.
        self.era = 0
        self._values: dict[str, Value] = {}
        self._deadlines: dict[str, float] = {}
        self._expiries: list[tuple[float, str]] = []
        self._waiters: dict[str, dict[Waiter, None]] = {}

    def find(self, key: str) -> Value | None:
        """Return what a key holds, unless its time is up."""
        self._expire()
        return self._values.get(key)

    def set(self, key: str, value: Value, ttl: Seconds | None = None) -> None:
        """Let a key hold a value, whatever it held before, for `ttl` seconds if given."""
        self._expire()
        self._values[key] = value
        self._deadlines.pop(key, None)
        if ttl is not None:
            self._live_until(key, ttl)
        self.notify(key)

    def renew(self, key: str, ttl: Seconds) -> bool:
        """Give a key another `ttl` seconds; tell whether it was there."""
        if self.find(key) is None:
            return False
        self._live_until(key, ttl)
        return True

    def left(self, key: str) -> Seconds | None:
        """Return for how long a key stays; inf for one that does so for ever, None for one that is not there."""
        if self.find(key) is None:
            return None
        return self._deadlines.get(key, inf) - self.clock.monotonic()

    def delete(self, key: str) -> bool:
        """Delete a key; tell whether it was there."""
        there = self.find(key) is not None
        self._values.pop(key, None)
        self._deadlines.pop(key, None)
        self.notify(key)
        return there

    def flush(self) -> None:
        """Delete every key."""
        self._values.clear()
        self._deadlines.clear()
        self._expiries.clear()
        for key in list(self._waiters):
            self.notify(key)

    def save(self) -> Saved:
        """Return a copy of all data."""
        return copy.deepcopy((self._values, self._deadlines, self._expiries))

    def restore(self, saved: Saved) -> None:
        """Take the data back to a copy."""
        self._values, self._deadlines, self._expiries = copy.deepcopy(saved)
        self.era += 1
        for key in list(self._waiters):
            self.notify(key)

    def stream(self, key: str) -> Stream | None:
        """Return a stream, or None.

        Raises:
            WrongTypeError: the key holds something else.
        """
        value = self.find(key)
        if value is None or isinstance(value, Stream):
            return value
        raise WrongTypeError(f"{key} holds something that is not a stream: delete that key, or use another prefix")

    def make_stream(self, key: str) -> Stream:
        """Return a stream, made if it was missing."""
        stream = self.stream(key)
        if stream is None:
            stream = Stream()
            self._values[key] = stream
        return stream

    def holding(self, key: str, kind: type[_Kind]) -> _Kind | None:
        """Return what a key holds, or None.

        Raises:
            WrongTypeError: it is of another kind.
        """
        value = self.find(key)
        if value is None or isinstance(value, kind):
            return value
        raise WrongTypeError(f"{key} holds something that hyperbus did not put there: delete that key")

    def sorted_set(self, key: str) -> SortedSet | None:
        """Return a sorted set, or None.

        Raises:
            WrongTypeError: the key holds something else.
        """
        value = self.find(key)
        if value is None:
            return None
        if isinstance(value, dict) and not isinstance(value, (ParkedEntries, Suspects)):
            return value
        raise WrongTypeError(f"{key} holds something that is not a sorted set: delete that key")

    def find_group(self, key: str, group: str) -> tuple[Stream, Group] | None:
        """Return a stream and a group on it, or None where one of them is missing."""
        stream = self.stream(key)
        if stream is None or group not in stream.groups:
            return None
        return stream, stream.groups[group]

    def group(self, key: str, group: str) -> tuple[Stream, Group]:
        """Return a stream and a group on it.

        Raises:
            GroupNotFoundError: one of them is missing.
        """
        found = self.find_group(key, group)
        if found is None:
            raise GroupNotFoundError(f"stream {key} or its group {group} does not exist: create the group again")
        return found

    def scan(self, pattern: str) -> list[str]:
        """Return the keys of streams that match a glob, in order."""
        self._expire()
        matches = glob(pattern).fullmatch
        return sorted(key for key, value in self._values.items() if isinstance(value, Stream) and matches(key))

    def watch(self, keys: Iterable[str]) -> Waiter:
        """Return a waiter that is woken by the next change of one of the keys."""
        waiter = Waiter()
        for key in keys:
            self._waiters.setdefault(key, {})[waiter] = None
        return waiter

    def unwatch(self, keys: Sequence[str], waiter: Waiter) -> None:
        """Forget a waiter."""
        for key in keys:
            waiters = self._waiters.get(key, {})
            waiters.pop(waiter, None)
            if not waiters:
                self._waiters.pop(key, None)

    def notify(self, key: str) -> None:
        """Wake whoever waits for a key, in the order they came."""
        for waiter in list(self._waiters.get(key, ())):
            waiter.wake()

    def _live_until(self, key: str, ttl: Seconds) -> None:
        deadline = self.clock.monotonic() + ttl
        self._deadlines[key] = deadline
        heappush(self._expiries, (deadline, key))

    def _expire(self) -> None:
        now = self.clock.monotonic()
        while self._expiries and self._expiries[0][0] <= now:
            deadline, key = heappop(self._expiries)
            # A key that was renewed or stored again meanwhile has another deadline.
            if self._deadlines.get(key) == deadline:
                del self._deadlines[key], self._values[key]
                self.notify(key)


_GLOB_PART = re.compile(
    r"\\(?P<escaped>.)|(?P<any>\*)|(?P<one>\?)|\[(?P<not>\^?)(?P<set>[^]]+)\]|(?P<plain>.)", re.DOTALL
)


def glob(pattern: str) -> re.Pattern[str]:
    """Compile a glob of the server's style: `*`, `?`, `[ab]`, `[^a-c]`, and a backslash before any of these."""

    def translate(part: re.Match[str]) -> str:
        if part["any"]:
            return ".*"
        if part["one"]:
            return "."
        if part["set"]:
            return f"[{part['not']}{part['set']}]"
        return re.escape(part["escaped"] or part["plain"])

    return re.compile(_GLOB_PART.sub(translate, pattern), re.DOTALL)
