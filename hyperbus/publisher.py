"""The way in: encode, route, append. Publishes that are awaited side by side share a round trip.

Nothing is sent twice: what was sent and not answered is `PublishUncertain`, and the caller decides.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec
import structlog

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import BusUnavailable, EventTooLargeError, HyperbusError, PublishFailed, PublishUncertain
from hyperbus.event.codec import Codec
from hyperbus.event.data import check_type
from hyperbus.event.envelope import Event
from hyperbus.event.routing import TypeFilter, notices_key, stream_key
from hyperbus.signals import Announcer, ConnectionChanged, Published, PublishErred
from hyperbus.transport import NewEntry, Transport

#: Entries that go to the server in one round trip, at most.
BATCH = 500
#: Bytes that go to the server in one round trip, about.
BATCH_BYTES = 4 * 1024 * 1024
#: A stream that is published into is entered in the directory again after this many seconds, should the server forget.
DIRECTORY_REFRESH: Seconds = 30.0
#: The sorted set of streams that hyperbus has published into, by the time of the first entry.
STREAM_DIRECTORY = "streams"
_FIRST_PAUSE: Seconds = 0.05
_LONGEST_PAUSE: Seconds = 1.0


class _Waiting(msgspec.Struct, gc=False, eq=False):
    """One event whose publisher waits for the answer."""

    entry: NewEntry
    size: int
    answer: asyncio.Future[str]
    deadline: float
    sent: bool = False


class Publisher:
    """Turns events into entries.

    1. Encodes an event and refuses one that is too large, before anything is sent.
    2. Holds a bounded number of events that wait; the next publisher waits for room.
    3. Sends what has gathered, one round trip at a time, so that order is kept.
    4. Tells each caller its entry id, or what went wrong, by its deadline.
    """

    def __init__(
        self,
        transport: Transport,
        announcer: Announcer,
        clock: Clock,
        *,
        codec: Codec,
        prefix: str,
        max_event_bytes: int,
        timeout: Seconds,
        buffer: int,
        buffer_bytes: int,
    ) -> None:
        self._transport = transport
        self._announcer = announcer
        self._clock = clock
        self._codec = codec
        self._prefix = prefix
        self._max_event_bytes = max_event_bytes
        self._timeout = timeout
        self._most = buffer
        self._most_bytes = buffer_bytes
        self._buffer: deque[_Waiting] = deque()
        self._in_flight: list[_Waiting] = []
        self._bytes = 0
        self._wanted = asyncio.Event()
        self._room = asyncio.Condition()
        self._room_wanted = 0
        self._listed: dict[str, float] = {}
        self._routes: dict[str, str] = {}
        self._sender: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._closing = False
        self._lost = False
        self._last_error = ""

    async def start(self) -> None:
        """Begin to send."""
        self._sender = asyncio.create_task(self._send_forever(), name="hyperbus publisher")

    async def stop(self) -> None:
        """Send what has gathered (until its deadlines), then stop."""
        self._closing = True
        self._wanted.set()
        if self._sender is not None:
            await self._sender
            self._sender = None
        if self._expiry is not None:
            self._expiry.cancel()

    async def publish(self, event: Event[Any], *, timeout: Seconds | None = None) -> str:  # noqa: ASYNC109
        """Append one event; return its entry id. See `Bus.publish`."""
        waiting_until = self._clock.monotonic() + (self._timeout if timeout is None else timeout)
        entry = self.encode(event)
        if self._closing or self._sender is None:
            raise BusUnavailable("the bus is closed; publish inside `async with Bus(...)`")
        size = len(entry.body)
        if not self._has_room(size):
            await self._wait_for_room(size, waiting_until)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._buffer.append(_Waiting(entry, size, answer, waiting_until))
        self._bytes += size
        self._wanted.set()
        if self._expiry is None or self._expiry.when() > waiting_until:
            self._expire_at(waiting_until)
        return await answer

    async def publish_many(self, events: Sequence[Event[Any]], *, timeout: Seconds | None = None) -> list[str]:  # noqa: ASYNC109
        """Append many events; return their entry ids, in order. See `Bus.publish_many`."""
        if self._closing or self._sender is None:
            raise BusUnavailable("the bus is closed; publish inside `async with Bus(...)`")
        deadline = self._clock.monotonic() + (self._timeout if timeout is None else timeout)
        results: list[str | HyperbusError] = []
        under_way: asyncio.Task[list[str | HyperbusError]] | None = None
        try:
            for start in range(0, len(events), BATCH):
                chunk = self._encode_each(events[start : start + BATCH])  # while the server works on the one before
                if under_way is not None:
                    results += await under_way
                under_way = asyncio.create_task(self._append_chunk(chunk, deadline), name="hyperbus publish_many")
                await asyncio.sleep(0)  # lets the chunk be written before the next one is encoded
            if under_way is not None:
                results += await under_way
        finally:
            if under_way is not None and not under_way.done():
                under_way.cancel()
                await asyncio.wait((under_way,))
        return _all_stored(results)

    def encode(self, event: Event[Any]) -> NewEntry:
        """Return the entry that an event becomes.

        Raises:
            EncodeError: its data cannot be written.
            EventTooLargeError: it is over the limit.
        """
        body = self._codec.encode(event)
        if len(body) > self._max_event_bytes:
            raise EventTooLargeError(
                f"{event.type} {event.id} is {len(body)} bytes, over the limit of {self._max_event_bytes}; "
                f"store large data elsewhere and publish where it is, or raise max_event_bytes"
            )
        stream = self._routes.get(event.type)
        if stream is None:
            stream = self._routes[check_type(event.type)] = stream_key(self._prefix, event.type)
        return NewEntry(stream, self._codec.field, body)

    # -- room

    def _has_room(self, size: int) -> bool:
        count = len(self._buffer) + len(self._in_flight)
        return count == 0 or (count < self._most and self._bytes + size <= self._most_bytes)

    async def _wait_for_room(self, size: int, deadline: float) -> None:
        self._room_wanted += 1
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())), self._room:
                await self._room.wait_for(lambda: self._has_room(size) or self._closing)
        except TimeoutError:
            raise self._unavailable("no room in the publish buffer") from None
        finally:
            self._room_wanted -= 1
        if self._closing:
            raise BusUnavailable("the bus was closed before the event was sent")

    async def _free(self, size: int) -> None:
        self._bytes -= size
        if self._room_wanted:
            async with self._room:
                self._room.notify_all()

    # -- sending

    async def _send_forever(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            if not self._buffer:
                if self._closing:
                    return
                self._wanted.clear()
                await self._wanted.wait()
                continue
            if await self._send_batch():
                pause = _FIRST_PAUSE
            else:
                await self._clock.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _send_batch(self) -> bool:
        """Send one batch; return whether the server was there."""
        batch = self._in_flight = self._take()
        try:
            unlisted = await self._list_streams([w.entry for w in batch if not w.answer.done()])
            # who gave up meanwhile, or was told that the event is not sent, finds it not sent
            sending = [waiting for waiting in batch if not waiting.answer.done()]
            for waiting in sending:
                waiting.sent = unlisted is None
            results = await self._append([waiting.entry for waiting in sending], unlisted)
        except BaseException as error:
            self._fail(batch, PublishUncertain(f"publishing was broken off: {error!r}"))
            raise
        finally:
            self._in_flight = []
        unsent = self._settle(sending, results)
        self._buffer.extendleft(reversed(unsent))
        await self._free(sum(w.size for w in batch) - sum(w.size for w in unsent))
        return not unsent

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._buffer and len(batch) < BATCH and size < BATCH_BYTES:
            batch.append(self._buffer.popleft())
            size += batch[-1].size
        return batch

    async def _append(self, entries: list[NewEntry], unlisted: BusUnavailable | None) -> list[str | HyperbusError]:
        """Append entries, unless the server was away when it was to list their streams."""
        if not entries:
            return []
        started = self._clock.monotonic()
        unsent: list[str | HyperbusError] = [unlisted] * len(entries) if unlisted else []
        results = unsent or await self._transport.streams.append(entries)
        self._announce(entries, results, self._clock.monotonic() - started)
        return results

    async def _append_chunk(self, chunk: list[NewEntry | HyperbusError], deadline: float) -> list[str | HyperbusError]:
        """Append what could be encoded; ask again, until the deadline, for what was not sent."""
        results: list[str | HyperbusError] = [item if isinstance(item, HyperbusError) else "" for item in chunk]
        left = [index for index, item in enumerate(chunk) if isinstance(item, NewEntry)]
        pause = _FIRST_PAUSE
        while left:
            entries = [item for i in left if isinstance(item := chunk[i], NewEntry)]
            late: HyperbusError = self._unavailable("the event was not sent in time")
            try:
                async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                    unlisted = await self._list_streams(entries)
                    late = unlisted or PublishUncertain("no answer in time; the event may be stored or not")
                    answers = await self._append(entries, unlisted)
            except TimeoutError:
                answers = [late] * len(left)
            for index, answer in zip(left, answers, strict=True):
                results[index] = answer
            left = [index for index in left if isinstance(results[index], BusUnavailable)]
            if left and self._clock.monotonic() + pause >= deadline:
                break
            if left:
                await self._clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        return results

    def _encode_each(self, events: Sequence[Event[Any]]) -> list[NewEntry | HyperbusError]:
        encoded: list[NewEntry | HyperbusError] = []
        for event in events:
            try:
                encoded.append(self.encode(event))
            except HyperbusError as error:
                encoded.append(error)
        return encoded

    async def _list_streams(self, entries: Sequence[NewEntry]) -> BusUnavailable | None:
        """Enter streams in the directory before their first entry, so that globs find them; return why it is away."""
        now = self._clock.now()
        new = {entry.stream: now for entry in entries if self._listed.get(entry.stream, 0.0) < now - DIRECTORY_REFRESH}
        if not new:
            return None
        try:
            if await self._transport.records.add_members(STREAM_DIRECTORY, new):
                births = [NewEntry(notices_key(self._prefix), b"stream", stream.encode()) for stream in new]
                await self._transport.streams.append(births)  # who misses one reads the directory soon after
        except HyperbusError as error:
            return error if isinstance(error, BusUnavailable) else None  # a full server refuses; the scan finds them
        self._listed |= new
        return None

    # -- answers

    def _settle(self, batch: Sequence[_Waiting], results: Sequence[str | HyperbusError]) -> list[_Waiting]:
        """Tell each caller; return those that were not sent and may still be."""
        unsent: list[_Waiting] = []
        for waiting, result in zip(batch, results, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(result, str):
                waiting.answer.set_result(result)
            elif isinstance(result, BusUnavailable):
                waiting.sent = False
                unsent.append(waiting)
            else:
                waiting.answer.set_exception(result)
        return unsent

    def _fail(self, batch: Iterable[_Waiting], error: HyperbusError) -> None:
        for waiting in batch:
            if not waiting.answer.done():
                waiting.answer.set_exception(error)

    def _expire_at(self, when: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_at(when, self._expire)

    def _expire(self) -> None:
        """End the waits that are over, and look again when the next one will be."""
        self._expiry = None
        now = self._clock.monotonic()
        following = float("inf")
        for waiting in (*self._buffer, *self._in_flight):
            if waiting.answer.done():
                continue
            if waiting.deadline > now:
                following = min(following, waiting.deadline)
            elif waiting.sent:
                waiting.answer.set_exception(PublishUncertain("no answer in time; the event may be stored or not"))
            else:
                waiting.answer.set_exception(self._unavailable("the event was not sent in time"))
        if following < float("inf"):
            self._expire_at(following)

    def _unavailable(self, what: str) -> BusUnavailable:
        return BusUnavailable(f"{what}; the last error was: {self._last_error or 'none, the server is slow'}")

    def _announce(self, entries: Sequence[NewEntry], results: Sequence[str | HyperbusError], seconds: Seconds) -> None:
        stored: Counter[str] = Counter()
        errors: Counter[str] = Counter()
        away: BusUnavailable | None = None
        cut = len(self._prefix) + 1
        for entry, result in zip(entries, results, strict=True):
            if isinstance(result, str):
                stored[entry.stream[cut:]] += 1
            else:
                errors[type(result).__name__] += 1
                away = result if isinstance(result, BusUnavailable) else away
        if stored:
            self._announcer.announce(Published(dict(stored), seconds))
        for error, count in errors.items():
            self._announcer.announce(PublishErred(count, error))
        self._last_error = str(away or "")
        if self._lost != (away is not None):
            self._lost = away is not None
            self._announcer.announce(ConnectionChanged("publisher", connected=not self._lost, error=self._last_error))


def _all_stored(results: list[str | HyperbusError]) -> list[str]:
    stored = [result for result in results if isinstance(result, str)]
    if len(stored) == len(results):
        return stored
    if all(isinstance(result, BusUnavailable) for result in results):
        raise BusUnavailable(f"none of {len(results)} events was sent: {results[0]}")
    raise PublishFailed(results)


#: A local handler, and the pattern of event types that it wants.
LocalHandler = Callable[[Event[Any]], Awaitable[None] | None]


class LocalHandlers:
    """Handlers that run in the publishing process, right after an event was stored. Best effort: errors are logged."""

    def __init__(self) -> None:
        self._handlers: list[tuple[TypeFilter, LocalHandler]] = []
        self._log = structlog.get_logger("hyperbus.publisher")

    def __bool__(self) -> bool:
        return bool(self._handlers)

    def add(self, pattern: str, handler: LocalHandler) -> None:
        """Let `handler` see events whose type matches `pattern`."""
        self._handlers.append((TypeFilter([pattern]), handler))

    async def call(self, event: Event[Any]) -> None:
        """Call every handler that wants the event, one after the other."""
        for types, handler in self._handlers:
            if not types.matches(event.type):
                continue
            try:
                answer = handler(event)
                if inspect.isawaitable(answer):
                    await answer
            except Exception as error:  # noqa: BLE001 - a local handler is a user's code, and the event is stored
                self._log.error("local handler failed", handler=repr(handler), type=event.type, error=repr(error))
