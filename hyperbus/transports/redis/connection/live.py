"""One live connection to a server, on which many calls may be in flight. It never repeats a call.

redis-py opens it, logs in and speaks TLS; after that the bytes are ours.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis
from redis import exceptions as redis_errors

from hyperbus.clock import Seconds
from hyperbus.errors import AuthenticationError, BusUnavailable
from hyperbus.forks import tell_after_fork
from hyperbus.transports.redis.connection.address import Address
from hyperbus.transports.redis.connection.unreachable import refusal_to_serve, unreachable
from hyperbus.transports.redis.protocol.replies import Refusal

#: Bytes that may wait in a transport before calls have to wait; a batch of 1,000 small events stays below.
_HIGH_WATER = 1024 * 1024
#: A timer that fires this much too late says that this process stood still, not that the server did.
_LATE: Seconds = 0.2
_NOTHING = object()


class NoAnswerError(BusUnavailable):
    """A call was sent and not answered to the end: the server may have done it. `replies` are those that came."""

    def __init__(self, message: str, replies: list[Any]) -> None:
        super().__init__(message)
        self.replies = replies


class _Call:
    """What one call still waits for."""

    __slots__ = ("count", "deadline", "future", "heard", "most_bytes", "replies", "timeout")

    def __init__(
        self, future: asyncio.Future[list[Any]], count: int, deadline: float, timeout: Seconds, most_bytes: int | None
    ) -> None:
        self.future = future
        self.count = count
        self.deadline = deadline
        self.timeout = timeout
        self.most_bytes = most_bytes
        #: Bytes of its answer that had come when it was last looked at.
        self.heard = 0
        self.replies: list[Any] = []


class Connection(asyncio.Protocol):
    """A live connection: writes calls, and hands replies to them in order. Once lost, it stays lost.

    A cancelled call keeps its place in the queue, so that its replies are thrown away and not given to the next one.
    """

    def __init__(self, writer: asyncio.StreamWriter, place: str) -> None:
        self._loop = asyncio.get_running_loop()
        # The writer is kept because it closes its transport when it is collected.
        self._writer = writer
        self._transport = writer.transport
        self._place = place
        self._reader = hiredis.Reader(replyError=Refusal, notEnoughData=_NOTHING)
        self._calls: deque[_Call] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_when = 0.0
        self._writable: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._retired = False
        #: Bytes that have come of the answer to the oldest call.
        self._heard = 0
        self.lost = False
        self._descriptor: int = self._transport.get_extra_info("socket").fileno()
        #: The era of the server that it leads to.
        self.era = 0
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        tell_after_fork(self)
        # A StreamReader costs one more wake-up of the loop and one more copy for each reply. asyncio offers the
        # exchange of protocols for this; only the way to the transport, in `open_connection`, is private to redis-py.
        self._transport.set_protocol(self)

    @property
    def usable(self) -> bool:
        """Whether a new call may be written."""
        return not (self.lost or self._retired)

    @property
    def paused(self) -> bool:
        """Whether calls have to wait until the socket takes more."""
        return self._writable is not None

    def write(
        self, packed: bytes, count: int, timeout: Seconds, most_bytes: int | None = None
    ) -> asyncio.Future[list[Any]]:
        """Send a call that is answered by `count` replies within `timeout`; return where they will be.

        An answer that takes longer is waited for as long as more of it comes. One of more than `most_bytes` is broken
        off, and the connection with it.
        """
        [future] = self.write_parts(packed, (count,), timeout, most_bytes)
        return future

    def write_parts(
        self, packed: bytes, counts: Sequence[int], timeout: Seconds, most_bytes: int | None = None
    ) -> list[asyncio.Future[list[Any]]]:
        """Send several calls with one write; return where the replies of each will be."""
        deadline = self._loop.time() + timeout
        calls = [_Call(self._loop.create_future(), count, deadline, timeout, most_bytes) for count in counts]
        self._calls += calls
        # One timer watches the oldest call: a timer for each call would cost more than the call.
        if self._timer is None:
            self._watch(deadline)
        elif deadline < self._timer_when:
            self._timer.cancel()
            self._watch(deadline)
        self._transport.write(packed)
        return [call.future for call in calls]

    async def wait_writable(self) -> None:
        """Wait until calls may be written again, or the connection is lost."""
        if self._writable is not None:
            await asyncio.shield(self._writable)

    def retire(self) -> None:
        """Take no more calls, and close when those in flight are answered."""
        self._retired = True
        if not self._calls:
            self.drop("the connection was given up")

    def drop(self, reason: str) -> None:
        """Close now; every call in flight fails."""
        if self.lost:
            return
        self.lost = True
        self._transport.abort()
        self._end(reason)

    async def wait_closed(self) -> None:
        """Wait until the transport let go of its socket."""
        await asyncio.shield(self._closed)

    def after_fork(self) -> None:
        """Put a dead socket in the place of the inherited one, in a forked child.

        What the child writes reaches nobody, its event loop takes nothing from the parent's, and when the parent is
        gone the server sees that, however long the child lives.
        """
        if self.lost:
            return
        self.lost = True
        dead, end = socket.socketpair()
        end.close()
        os.dup2(dead.fileno(), self._descriptor, inheritable=False)
        dead.close()

    # What asyncio calls.

    def data_received(self, data: bytes) -> None:
        """Give replies to the calls that wait for them."""
        calls = self._calls
        gets = self._reader.gets
        try:
            self._heard += len(data)
            self._reader.feed(data)
            while calls:
                call = calls[0]
                replies, count = call.replies, call.count
                while len(replies) < count:
                    reply = gets()
                    if reply is _NOTHING:
                        if call.most_bytes is not None and self._heard > call.most_bytes:
                            self.drop(f"its answer has more than {call.most_bytes} bytes")
                        return
                    replies.append(reply)
                calls.popleft()
                self._heard = 0
                if not call.future.done():
                    call.future.set_result(replies)
            # An answer that nobody asked for would be taken for the answer to the next call.
            if gets() is not _NOTHING:
                self.drop("the server sent what nobody asked for")
        except hiredis.ProtocolError as error:
            self.drop(f"what the server sent is not the Redis protocol ({error})")
        if self._retired and not calls:
            self.drop("the connection was given up")

    def pause_writing(self) -> None:
        """The socket is full."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """The socket takes more."""
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by whomever."""
        if not self.lost:
            self.lost = True
            self._end(str(exc) if exc else "the server closed the connection")
        self._closed.set_result(None)

    def _end(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.resume_writing()
        calls, self._calls = self._calls, deque()
        for call in calls:
            if not call.future.done():
                call.future.set_exception(
                    NoAnswerError(f"no answer from {self._place}: {reason}; asking again connects again", call.replies)
                )

    def _watch(self, when: float) -> None:
        self._timer_when = when
        self._timer = self._loop.call_at(when, self._check_oldest)

    def _check_oldest(self) -> None:
        now = self._loop.time()
        self._timer = None
        if not self._calls:
            return
        deadline = self._calls[0].deadline
        if now < deadline:
            self._watch(deadline)
        elif self._heard > self._calls[0].heard:
            # More of its answer came: a large one takes its time on a slow way.
            oldest = self._calls[0]
            oldest.heard, oldest.deadline = self._heard, now + oldest.timeout
            self._watch(oldest.deadline)
        elif now - self._timer_when > _LATE:
            # The loop was blocked or the machine slept: answers may lie unread in the socket.
            self._watch(now + _LATE)
        else:
            self.drop("it took longer than the command timeout")


async def open_connection(address: Address, connect_timeout: Seconds) -> Connection:
    """Connect and log in within `connect_timeout`.

    Raises:
        BusUnavailable: the server cannot be reached, or cannot serve.
        AuthenticationError: it refused the user or the password.
    """
    place = address.description
    try:
        opened = address.connection()
    except OSError as error:  # it reads a file, and there may be none left to open
        raise BusUnavailable(f"no connection to {place} can be made: {error}") from None
    try:
        async with asyncio.timeout(connect_timeout):
            await opened.connect()  # type: ignore[no-untyped-call]
    except redis_errors.AuthenticationError as error:
        raise AuthenticationError(f"{place} refused the user name or the password: {error}") from None
    except redis_errors.BusyLoadingError as error:
        raise BusUnavailable(f"{place} cannot serve yet: {error}") from None
    except redis_errors.ResponseError as error:
        raise refusal_to_serve(str(error), place) from None
    except TimeoutError:
        raise await unreachable(opened, place, f"no answer in {connect_timeout:g} s") from None
    except (redis_errors.RedisError, OSError) as error:
        raise await unreachable(opened, place, str(error)) from None
    # The private attribute that hands us the transport; see `Connection`.
    writer = cast("asyncio.StreamWriter", opened._writer)  # noqa: SLF001 - redis-py has no public way
    opened._writer = None  # noqa: SLF001 - it is ours now: redis-py must not close it
    return Connection(writer, place)
