"""One connection to a server, on which many calls may be in flight: `Wire`, and the `Link` of the moment under it.

redis-py opens it, logs in and speaks TLS; after that the bytes are ours. It never repeats a call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis
from redis import exceptions as redis_errors

from hyperbus.clock import Seconds
from hyperbus.errors import AuthenticationError, BusUnavailable, HyperbusError, ServerError
from hyperbus.transports.redis.connection.address import Address
from hyperbus.transports.redis.protocol.commands import pack
from hyperbus.transports.redis.protocol.replies import Refusal, error_of, is_away

#: Bytes that may wait in a transport before calls have to wait; a batch of 1,000 small events stays below.
_HIGH_WATER = 1024 * 1024
#: A timer that fires this much too late says that this process stood still, not that the server did.
_LATE: Seconds = 0.2
_NOTHING = object()
_CLIENT_ID = pack("CLIENT", "ID")
_ADVICE = "is the server running, and are host and port right?"


class NoAnswerError(BusUnavailable):
    """A call was sent and not answered to the end: the server may have done it. `replies` are those that came."""

    def __init__(self, message: str, replies: list[Any]) -> None:
        super().__init__(message)
        self.replies = replies


class _Call:
    """What one call still waits for."""

    __slots__ = ("count", "deadline", "future", "replies")

    def __init__(self, future: asyncio.Future[list[Any]], count: int, deadline: float) -> None:
        self.future = future
        self.count = count
        self.deadline = deadline
        self.replies: list[Any] = []


class Link(asyncio.Protocol):
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
        self.lost = False
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        # A StreamReader costs one more wake-up of the loop and one more copy for each reply. asyncio offers the
        # exchange of protocols for this; only the way to the transport, in `open_link`, is private to redis-py.
        self._transport.set_protocol(self)

    @property
    def usable(self) -> bool:
        """Whether a new call may be written."""
        return not (self.lost or self._retired)

    @property
    def paused(self) -> bool:
        """Whether calls have to wait until the socket takes more."""
        return self._writable is not None

    def write(self, packed: bytes, count: int, timeout: Seconds) -> asyncio.Future[list[Any]]:
        """Send a call that is answered by `count` replies within `timeout`; return where they will be."""
        [future] = self.write_parts(packed, (count,), timeout)
        return future

    def write_parts(self, packed: bytes, counts: Sequence[int], timeout: Seconds) -> list[asyncio.Future[list[Any]]]:
        """Send several calls with one write; return where the replies of each will be."""
        deadline = self._loop.time() + timeout
        calls = [_Call(self._loop.create_future(), count, deadline) for count in counts]
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
        """Wait until calls may be written again, or the link is lost."""
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

    # What asyncio calls.

    def data_received(self, data: bytes) -> None:
        """Give replies to the calls that wait for them."""
        calls = self._calls
        gets = self._reader.gets
        try:
            self._reader.feed(data)
            while calls:
                call = calls[0]
                replies, count = call.replies, call.count
                while len(replies) < count:
                    reply = gets()
                    if reply is _NOTHING:
                        return
                    replies.append(reply)
                calls.popleft()
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
        elif now - self._timer_when > _LATE:
            # The loop was blocked or the machine slept: answers may lie unread in the socket.
            self._watch(now + _LATE)
        else:
            self.drop("it took longer than the command timeout")


async def open_link(address: Address, connect_timeout: Seconds) -> Link:
    """Connect and log in within `connect_timeout`.

    Raises:
        BusUnavailable: the server cannot be reached, or cannot serve.
        AuthenticationError: it refused the user or the password.
    """
    connection = address.connection()
    place = address.description
    try:
        async with asyncio.timeout(connect_timeout):
            await connection.connect()  # type: ignore[no-untyped-call]
    except redis_errors.AuthenticationError as error:
        raise AuthenticationError(f"{place} refused the user name or the password: {error}") from None
    except redis_errors.BusyLoadingError as error:
        raise BusUnavailable(f"{place} cannot serve yet: {error}") from None
    except redis_errors.ResponseError as error:
        raise ServerError(f"{place} refused the connection: {error}") from None
    except TimeoutError:
        raise BusUnavailable(f"cannot reach {place}: no answer in {connect_timeout:g} s; {_ADVICE}") from None
    except (redis_errors.RedisError, OSError) as error:
        raise BusUnavailable(f"cannot reach {place}: {error}; {_ADVICE}") from None
    # The private attribute that hands us the transport; see `Link`.
    writer = cast("asyncio.StreamWriter", connection._writer)  # noqa: SLF001 - redis-py has no public way
    connection._writer = None  # noqa: SLF001 - it is ours now: redis-py must not close it
    return Link(writer, place)


class Wire:
    """A connection that is made when it is first needed and made again after it was lost.

    Attributes:
        client_id: how the server calls this connection, if `identify` was asked for and the server tells.
        command_timeout: how long the server may take to answer.
    """

    def __init__(
        self, address: Address, *, connect_timeout: Seconds, command_timeout: Seconds, identify: bool = False
    ) -> None:
        self.client_id: int | None = None
        self._address = address
        self._connect_timeout = connect_timeout
        self.command_timeout = command_timeout
        self._identify = identify
        self._link: Link | None = None
        self._connecting = asyncio.Lock()
        self._attempts = 0
        self._failure: HyperbusError | None = None
        self._closed = False

    @property
    def place(self) -> str:
        """Where it goes to, for people."""
        return self._address.description

    async def call(self, packed: bytes, count: int = 1, *, wait: Seconds = 0.0) -> list[Any]:
        """Send packed commands and return their `count` replies, error replies among them as `Refusal`.

        `wait` is how much longer than the command timeout the server may take, as a read that blocks does.

        Raises:
            NoAnswerError: it was sent, and the connection broke or the time was up.
            BusUnavailable: it was not sent.
        """
        return await (await self.send(packed, count, wait=wait))

    async def send(self, packed: bytes, count: int, *, wait: Seconds = 0.0) -> asyncio.Future[list[Any]]:
        """Do the first half of `call`: return when the call is written."""
        link = self._link
        if link is None or not link.usable or link.paused:
            link = await self.ready()
        return link.write(packed, count, self.command_timeout + wait)

    async def ready(self, same: Link | None = None) -> Link:
        """Return a link that takes a call at once; where `same` is given, that one or none.

        Raises:
            BusUnavailable: there is none; nothing was sent.
        """
        link = self._link
        if same is not None and link is not same:
            raise BusUnavailable(f"the connection to {self.place} broke before the command was sent; try again")
        if link is None or (same is None and not link.usable):
            link = await self._connect()
        if link.paused:
            try:
                async with asyncio.timeout(self.command_timeout):
                    while link.paused:
                        await link.wait_writable()
            except TimeoutError:
                raise BusUnavailable(f"{self.place} takes no more commands: not sent; try again later") from None
        if not link.usable:
            raise BusUnavailable(f"the connection to {self.place} broke before the command was sent; try again")
        return link

    async def _connect(self) -> Link:
        attempts = self._attempts
        async with self._connecting:
            if self._closed:
                raise BusUnavailable(f"the connection to {self.place} was closed; open a new bus")
            if self._link is not None and self._link.usable:
                return self._link
            # Whoever waited for another's attempt shares its failure: a hundred callers are not a hundred attempts.
            if self._attempts != attempts and self._failure is not None:
                raise type(self._failure)(str(self._failure))
            self._failure = None
            try:
                link = await self._open()
            except HyperbusError as error:
                self._failure = error
                raise
            finally:
                self._attempts += 1
            self._link = link
            return link

    async def _open(self) -> Link:
        link = await open_link(self._address, self._connect_timeout)
        try:
            if self._identify:
                [reply] = await link.write(_CLIENT_ID, 1, self.command_timeout)
                self.client_id = reply if isinstance(reply, int) else None
        except NoAnswerError as error:
            raise BusUnavailable(f"cannot reach {self.place}: {error}") from None
        except BaseException:
            link.drop("the caller gave up")
            raise
        if self._closed:
            link.drop("it was closed meanwhile")
        return link

    def error_of(self, refusal: Refusal) -> HyperbusError:
        """Return the error that a refusal stands for; where another connection may do better, this one is given up."""
        error = error_of(refusal, self.place)
        if self._link is not None and (is_away(refusal) or isinstance(error, AuthenticationError)):
            self._link.retire()
        return error

    def check(self, replies: list[Any]) -> list[Any]:
        """Return the replies, or raise the error of the first refusal among them."""
        for reply in replies:
            if type(reply) is Refusal:
                raise self.error_of(reply)
        return replies

    def drop(self, reason: str) -> None:
        """Close the connection now; the next call makes a new one."""
        if self._link is not None:
            self._link.drop(reason)

    def reopen(self) -> None:
        """Take calls again after `close`."""
        self._closed = False

    async def close(self) -> None:
        """Close; later calls are refused. Twice is safe."""
        self._closed = True
        link = self._link
        if link is not None:
            link.drop("it was closed")
            await link.wait_closed()
