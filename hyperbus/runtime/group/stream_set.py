"""The streams that a worker reads: what type each of them holds, and which are set aside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import ServerError, WrongTypeError
from hyperbus.event.routing import TypeFilter
from hyperbus.runtime.group.stream_turns import MANY, StreamTurns
from hyperbus.signals import Announcer, ConnectionChanged

#: How long a key that is no stream is set aside.
SET_ASIDE: Seconds = 30.0
#: How often a stream is looked at that the server refuses to read for now, and at how many of these at a time.
LOOK_AGAIN: Seconds = 1.0
_LOOKS = 20


class StreamSet:
    """Grows while the worker runs: streams are found after they are born.

    A key that is no stream would make every read fail; it is set aside for a while, and the others go on. So is one
    stream of several that the server refuses to read, as for want of rights: until a look at it alone succeeds.
    """

    def __init__(self, types: TypeFilter, announcer: Announcer, clock: Clock) -> None:
        self._types = types
        self._announcer = announcer
        self._clock = clock
        self._known: dict[str, str] = {}
        self._names: tuple[str, ...] = ()
        #: Those let go of last: a read that was under way may still bring something.
        self._gone: dict[str, str] = {}
        #: Whose turn it is, where there are very many.
        self.turns = StreamTurns()
        #: Until when streams are set aside, on the monotonic clock.
        self._aside: dict[str, float] = {}
        #: Streams that are refused, and when to look at them again, soonest first.
        self._refused: dict[str, float] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Every stream, those that are set aside included."""
        return self._names

    def missing(self, streams: Mapping[str, str]) -> dict[str, str]:
        """Return those of these streams (key and type) that the consumer takes and that are not in the set yet."""
        matches = self._types.matches
        return {name: kind for name, kind in streams.items() if name not in self._known and matches(kind)}

    def add(self, streams: Mapping[str, str]) -> None:
        """Take streams in, with the types that they hold."""
        self._known |= streams
        self._names = tuple(self._known)
        self.turns.expect(streams)

    def expect(self, streams: Iterable[str]) -> bool:
        """Hear that something may have come into streams; tell whether that helps: few are all read anyway."""
        known = [name for name in streams if name in self._known] if len(self._names) > MANY else []
        self.turns.expect(known)
        return bool(known)

    def remove(self, streams: Iterable[str]) -> list[str]:
        """Let go of streams that came to an end, but for those that the consumer names; return which."""
        named = self._types.names
        gone = [name for name in streams if name in self._known and self._known[name] not in named]
        for name in gone:
            self._gone[name] = self._known.pop(name)
            self._aside.pop(name, None)
            self._refused.pop(name, None)
        if gone:
            self._names = tuple(self._known)
            while len(self._gone) > MANY:
                del self._gone[next(iter(self._gone))]
        return gone

    def some(self) -> tuple[str, ...]:
        """Return the streams that are not set aside; where they are very many, a part of them, in turns."""
        return self.turns.share(self.readable(), self._clock.monotonic())

    def type_in(self, stream: str) -> str:
        """Return the event type that a stream of the set holds."""
        return self._known.get(stream) or self._gone[stream]

    def readable(self) -> tuple[str, ...]:
        """Return the streams that are not set aside."""
        if self._aside or self._refused:
            now = self._clock.monotonic()
            self._aside = {name: until for name, until in self._aside.items() if until > now}
            return tuple(name for name in self._names if name not in self._aside and name not in self._refused)
        return self._names

    @property
    def has_refused(self) -> bool:
        """Whether streams are set aside until they may be read again; see `due`."""
        return bool(self._refused)

    def set_aside(self, stream: str, error: ServerError) -> None:
        """Leave a stream alone: for `SET_ASIDE` seconds if it is none, and until `readmit` if it is only refused."""
        now = self._clock.monotonic()
        if isinstance(error, WrongTypeError):
            self._aside[stream] = now + SET_ASIDE
            why = f"left alone for {SET_ASIDE:.0f} s: {error}"
        else:
            self._refused[stream] = now + LOOK_AGAIN
            why = f"left alone until the server lets it be read: {error}"
        self._announcer.announce(ConnectionChanged(f"stream {stream}", connected=False, error=why, kind="stream"))

    def due(self) -> list[str]:
        """Return refused streams that are to be looked at now, some at a time; each is looked at again later."""
        now = self._clock.monotonic()
        found = [name for name, moment in islice(self._refused.items(), _LOOKS) if moment <= now]
        for name in found:
            del self._refused[name]
            self._refused[name] = now + LOOK_AGAIN
        return found

    def readmit(self, stream: str) -> None:
        """Read a stream again that was refused."""
        if self._refused.pop(stream, None) is not None:
            self._announcer.announce(ConnectionChanged(f"stream {stream}", connected=True, kind="stream"))
