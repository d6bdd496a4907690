"""Where deliveries go when they have ended: three sets of promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from hyperbus.clock import Seconds
from hyperbus.declaration.outcome import DeadLettered, Retried
from hyperbus.errors import BusUnavailable, ServerError
from hyperbus.runtime.in_flight.inbox import Inbox, Received
from hyperbus.transport import Streams

#: Makes an entry a dead letter: the entry, the reason, the error.
Bury = Callable[[Received, str, BaseException | None], None]
#: Lets an entry be tried again, after this long.
TryAgain = Callable[[Received, Seconds], None]
#: Lets go of entries of a stream that are done with.
LetGo = Callable[[str, Iterable[bytes]], None]


class Elsewhere(Protocol):
    """Where parked entries end; see `parker.Parker`."""

    def again(self, received: Received, after: Seconds) -> None:
        """Let one be tried again."""

    def bury(self, received: Received, reason: str, error: BaseException | None) -> None:
        """Make one a dead letter."""


class Endings(Protocol):
    """What the executor tells of each delivery."""

    async def before(self, received: Sequence[Received]) -> None:
        """Prepare: the handler is about to run. Called only where acks come first."""

    def acked(self, received: Sequence[Received]) -> None:
        """Take deliveries that are done."""

    def retried(self, received: Received, outcome: Retried, /) -> None:
        """Take a delivery that is to be tried again."""

    def dead_lettered(self, received: Received, outcome: DeadLettered, /) -> None:
        """Take a delivery that is given up."""


class GroupEndings:
    """At least once: acked when the handler is done."""

    def __init__(self, ack: Callable[[str, list[bytes]], None], retry: TryAgain, bury: Bury) -> None:
        self._ack = ack
        self._retry = retry
        self._bury = bury

    async def before(self, received: Sequence[Received]) -> None:
        """Do nothing: the ack comes last."""

    def acked(self, received: Sequence[Received]) -> None:
        """Ack them."""
        for stream, ids in _ids_by_stream(received).items():
            self._ack(stream, ids)

    def retried(self, received: Received, outcome: Retried) -> None:
        """Let it wait for its next try."""
        self._retry(received, outcome.after)

    def dead_lettered(self, received: Received, outcome: DeadLettered) -> None:
        """Make it a dead letter."""
        self._bury(received, outcome.reason, outcome.error)


class AckFirstEndings:
    """At most once: acked before the handler begins."""

    def __init__(self, streams: Streams, group: str, let_go: LetGo, bury: Bury) -> None:
        self._streams = streams
        self._group = group
        self._let_go = let_go
        self._bury = bury

    async def before(self, received: Sequence[Received]) -> None:
        """Ack, and wait until the server has it."""
        acks = [(stream, self._group, ids) for stream, ids in _ids_by_stream(received).items()]
        pause = 0.05
        while True:
            try:
                await self._streams.ack(acks)
                return
            except BusUnavailable:
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
            except ServerError:
                return  # the stream is no stream any more: nothing of it is pending, so nothing comes twice

    def acked(self, received: Sequence[Received]) -> None:
        """Let go of them."""
        for stream, ids in _ids_by_stream(received).items():
            self._let_go(stream, ids)

    def retried(self, received: Received, _outcome: Retried, /) -> None:
        """Let go of it: it is acked, and never tried again."""
        self._let_go(received.stream, [received.id])

    def dead_lettered(self, received: Received, outcome: DeadLettered) -> None:
        """Make it a dead letter: it never reached its handler."""
        self._bury(received, outcome.reason, outcome.error)


class CursorEndings:
    """No promises: seen is done."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def before(self, received: Sequence[Received]) -> None:
        """Do nothing: there is no ack."""

    def acked(self, received: Sequence[Received]) -> None:
        """Let go of them."""
        for stream, ids in _ids_by_stream(received).items():
            self._inbox.let_go(stream, ids)

    def retried(self, received: Received, _outcome: Retried, /) -> None:
        """Let go of it."""
        self._inbox.let_go(received.stream, [received.id])

    def dead_lettered(self, received: Received, _outcome: DeadLettered, /) -> None:
        """Let go of it."""
        self._inbox.let_go(received.stream, [received.id])


def by_place(retry: TryAgain, bury: Bury, parked: Elsewhere) -> tuple[TryAgain, Bury]:
    """Return `retry` and `bury` for entries of both kinds: pending ones, as given, and parked ones."""

    def retry_any(received: Received, after: Seconds) -> None:
        (parked.again if received.parked else retry)(received, after)

    def bury_any(received: Received, reason: str, error: BaseException | None) -> None:
        (parked.bury if received.parked else bury)(received, reason, error)

    return retry_any, bury_any


def _ids_by_stream(received: Sequence[Received]) -> dict[str, list[bytes]]:
    streams = {item.stream for item in received}
    if len(streams) == 1:
        return {received[0].stream: [item.id for item in received]}
    ids: dict[str, list[bytes]] = {stream: [] for stream in streams}
    for item in received:
        ids[item.stream].append(item.id)
    return ids
