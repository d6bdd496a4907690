"""What the bus announces while it works, and who hears it. Metrics, logs and tests are all listeners.

A signal is announced once a batch, never once an event. Listeners are called on the event loop and must
not block; one that raises is logged and called again next time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from hyperbus.clock import Seconds
from hyperbus.error_text import describe, error_info, repr_of
from hyperbus.interruption import is_from_signal
from hyperbus.logger import get_logger

#: How often a failing listener is told of in so many seconds.
MOST_LISTENER_LINES = 10
LISTENER_WINDOW: Seconds = 10.0


class Published(msgspec.Struct, frozen=True):
    """Entries were appended. `counts` by event type; `seconds` from the oldest one's encoding to the answer."""

    counts: dict[str, int]
    seconds: Seconds


class PublishErred(msgspec.Struct, frozen=True):
    """Events could not be appended, or it is not known whether they were. `error` is the error's type name.

    "NotAwaited": nobody awaited what `publish` returned, and nothing was sent.
    """

    count: int
    error: str


class Handled(msgspec.Struct, frozen=True):
    """Deliveries went through a handler, or were found undecodable; how many of each event type ended how.

    `handler_seconds` has one item a handler call, `latencies` (from the event's timestamp to the end of its handling)
    one a delivery that was acked.
    """

    group: str
    acked: dict[str, int]
    retried: dict[str, int]
    dead_lettered: dict[str, int]
    handler_seconds: Sequence[Seconds]
    latencies: Sequence[Seconds]


class Acknowledged(msgspec.Struct, frozen=True):
    """The server took acks for this many entries of a group."""

    group: str
    count: int


class DeliveryFailed(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A call of a handler failed, or an entry never reached its handler; and what becomes of that.

    Attributes:
        consumer: the consumer's name; `group`, `stream` and `entry_id` say which delivery it was, and of many that
            failed in one call together, which was the first.
        event_id, workflow_id: None where they are not known.
        tries: which try it was; `most_tries` how many there are, None where there is only this one.
        cause: "raised" an error, a "retry" or a "reject" that the handler asked for; "undecodable" or "poison".
        after: when the next try comes; None: there is none.
        dead_lettered: whether it becomes a dead letter; without a next try, and not that, it is forgotten.
        error: what was raised, with its traceback. It is a user's object, which may do anything when it is looked at:
            `hyperbus.error_text` puts it into words.
        count: deliveries that failed in this call.
    """

    consumer: str
    group: str
    stream: str
    entry_id: str
    event_type: str
    event_id: str | None
    workflow_id: str | None
    tries: int
    most_tries: int | None
    cause: Literal["raised", "retry", "reject", "undecodable", "poison"]
    after: Seconds | None
    dead_lettered: bool
    error: BaseException
    count: int = 1


class LocalHandlerFailed(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A handler in the publishing process failed (`Bus.on_publish`); the event is stored all the same."""

    handler: str
    event_type: str
    event_id: str
    workflow_id: str | None
    error: BaseException


class RetryScheduled(msgspec.Struct, frozen=True):
    """A delivery failed and waits for its next try."""

    group: str
    stream: str
    entry_id: str
    tries: int
    after: Seconds
    error: str


class EntryDeadLettered(msgspec.Struct, frozen=True):
    """An entry became a dead letter of a group."""

    group: str
    stream: str
    entry_id: str
    reason: str
    error: str
    message: str


class Claimed(msgspec.Struct, frozen=True):
    """Pending entries of a dead consumer were taken over."""

    group: str
    stream: str
    count: int
    owner: str


class Recovered(msgspec.Struct, frozen=True):
    """Entries that were delivered to this worker without its knowing were found again.

    Attributes:
        group: the consumer group.
        stream: the stream's key.
        count: how many entries.
        handed_over: whether another worker has given them to this one, and nothing went wrong.
    """

    group: str
    stream: str
    count: int
    handed_over: bool = False


class Disowned(msgspec.Struct, frozen=True):
    """Entries that a worker held and that a server, which lost its tail, no longer knows to be with it.

    How they end is told nobody: their ids may be other events' by now. Those that the server still has come again.
    """

    group: str
    count: int


class SuspectRuns(msgspec.Struct, frozen=True):
    """An entry that may kill its process has it to itself from now on (`alone`), or no longer."""

    group: str
    stream: str
    entry_id: str
    alone: bool


class StreamsFound(msgspec.Struct, frozen=True):
    """A group now also reads these streams."""

    group: str
    streams: tuple[str, ...]


class StreamsAwaited(msgspec.Struct, frozen=True):
    """A group reads these streams, which its consumer names, and nobody has ever published into them. Told at first.

    Perhaps a name is misspelt.
    """

    group: str
    streams: tuple[str, ...]


class GroupRebuilt(msgspec.Struct, frozen=True):
    """A group that the server had lost was created again, after `entry_id`.

    Up to `replayed` entries that were read before may come again; None where they could not be counted.
    """

    group: str
    stream: str
    entry_id: str
    replayed: int | None = None


class ConnectionChanged(msgspec.Struct, frozen=True):
    """The server was lost, or found again, by a part of the process; or one stream was, and the server was not.

    `part` tells people which part it was, `kind` tells programs.
    """

    part: str
    connected: bool
    error: str = ""
    kind: Literal["reader", "heartbeat", "publisher", "stream", "connection"] = "connection"


class RefusalChanged(msgspec.Struct, frozen=True):
    """The server refuses what a part of the process asks, or no longer does; it is asked again meanwhile.

    `part` tells people which part it was, and what of; `error` is the server's reason.
    """

    part: str
    refused: bool
    error: str = ""


class BackgroundChanged(msgspec.Struct, frozen=True):
    """A task that runs in the background failed and is begun again; or it runs again as it should."""

    part: str
    running: bool
    error: str = ""


class BoundReached(msgspec.Struct, frozen=True):
    """Something has as many members as it may have; what is beyond is left out, or done less well. Told once a process.

    `bound` says which one, such as "streams that a process knows".
    """

    bound: str
    limit: int


class WorkerChanged(msgspec.Struct, frozen=True):
    """A worker reached a new state. "cut off": its drain time was up and handlers were still running.

    `consumer` is the worker's name in its group, as the server calls it; `declared` is that of the consumer.
    """

    group: str
    consumer: str
    state: Literal["started", "draining", "cut off", "stopped"]
    declared: str = ""


class Trimmed(msgspec.Struct, frozen=True):
    """Entries that no live group had yet to ack were cut from a stream, as its retention says."""

    stream: str
    count: int


class CutUnread(msgspec.Struct, frozen=True):
    """Entries went that this group had not acked.

    By the stream's hard cap; because nobody serves the group; or "elsewhere": another program trimmed the stream
    (`XADD ... MAXLEN`, `XTRIM`) or deleted from it (`XDEL`), and the group was never handed them.
    """

    group: str
    stream: str
    count: int
    reason: Literal["hard cap", "abandoned", "elsewhere"]


class HardCapNear(msgspec.Struct, frozen=True):
    """What groups have yet to ack fills this share of a stream's hard cap; from 1 on it is cut."""

    stream: str
    share: float


class GroupAbandoned(msgspec.Struct, frozen=True):
    """Nobody serves a group. First a warning, `seconds_left` before it stops holding the stream; then 0."""

    group: str
    stream: str
    seconds_left: Seconds


class GhostStream(msgspec.Struct, frozen=True):
    """No group reads a stream: its entries go by age, or as soon as it has more than `limit` bytes."""

    stream: str
    entries: int
    limit: int


Signal = (
    Published
    | PublishErred
    | Handled
    | Acknowledged
    | DeliveryFailed
    | LocalHandlerFailed
    | RetryScheduled
    | EntryDeadLettered
    | Claimed
    | Recovered
    | Disowned
    | SuspectRuns
    | StreamsFound
    | StreamsAwaited
    | GroupRebuilt
    | ConnectionChanged
    | BackgroundChanged
    | BoundReached
    | RefusalChanged
    | WorkerChanged
    | Trimmed
    | CutUnread
    | HardCapNear
    | GroupAbandoned
    | GhostStream
)
#: Anything that wants to hear signals.
Listener = Callable[[Signal], None]


class Announcer:
    """Tells every listener of a signal; a listener that raises harms nobody but itself."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self._listeners = list(listeners)
        self._log = get_logger("hyperbus.signals")
        #: Since when a failing listener is counted, and how often it has failed since.
        self._failing: dict[int, tuple[float, int]] = {}

    def add(self, listener: Listener) -> None:
        """Let `listener` hear every signal from now on."""
        self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """Stop telling `listener`."""
        self._listeners.remove(listener)
        self._failing.pop(id(listener), None)

    def announce(self, signal: Signal) -> None:
        """Tell every listener."""
        for listener in tuple(self._listeners):  # a listener may remove itself
            try:
                listener(signal)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if is_from_signal(error):
                    raise
                self._tell(listener, error)

    def _tell(self, listener: Listener, error: BaseException) -> None:
        """Log that a listener failed; of one that fails again and again, ten times in a while, and how often it was."""
        now = time.monotonic()
        began, times = self._failing.get(id(listener), (now, 0))
        left_out = 0
        if now - began > LISTENER_WINDOW:
            left_out, began, times = max(0, times - MOST_LISTENER_LINES), now, 0
        self._failing[id(listener)] = began, times + 1
        if times < MOST_LISTENER_LINES:
            values = {"times_not_logged": left_out} if left_out else {}
            self._log.error(
                "listener failed",
                listener=repr_of(listener),
                error=describe(error),
                **values,
                exc_info=error_info(error),
            )
