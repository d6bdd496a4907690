"""Events of one mode on their way: a queue, and the task that sends it one round trip at a time, so that order is kept.

Nothing is sent twice, unless a repeat adds nothing: what was sent and not answered is `PublishUncertain`.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from hyperbus.clock import Clock
from hyperbus.errors import BusUnavailable, HyperbusError, PublishUncertain
from hyperbus.publisher.appender import FIRST_PAUSE, LONGEST_PAUSE, Appender, Mode
from hyperbus.publisher.buffer_limit import BufferLimit
from hyperbus.transport import NewEntry
from hyperbus.transport.appends import AppendResult

#: Entries that go to the server in one round trip, at most.
BATCH = 500
#: The same where the round trip waits for replicas or a disk, which takes as long for many as for one.
DURABLE_BATCH = 5_000
#: Bytes that go to the server in one round trip, about.
BATCH_BYTES = 4 * 1024 * 1024


class _Waiting(msgspec.Struct, gc=False, eq=False):
    """One event whose publisher waits for the answer."""

    entry: NewEntry
    event_id: str
    size: int
    answer: asyncio.Future[str]
    deadline: float
    #: It was sent and not answered: it may be stored, whatever later tries say.
    uncertain: bool = False


class SendQueue:
    """Sends events of one mode, and tells each caller its entry id, or what went wrong, by its deadline.

    Attributes:
        ended: it sends no more; one for durability ends when it has nothing to send.
    """

    def __init__(self, mode: Mode, appender: Appender, clock: Clock, limit: BufferLimit) -> None:
        self._mode = mode
        self._appender = appender
        self._clock = clock
        self._limit = limit
        self._most = BATCH if mode.durability is None else DURABLE_BATCH
        self._loop = asyncio.get_running_loop()
        self._buffer: deque[_Waiting] = deque()
        self._in_flight: list[_Waiting] = []
        self._sent = False
        self._wake: asyncio.Future[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._expires = float("inf")
        self._closing = False
        self.ended = False

    def put(self, entry: NewEntry, event_id: str, deadline: float) -> asyncio.Future[str]:
        """Queue an entry that has its place in the buffer; return where its id will be."""
        answer = self._loop.create_future()
        self._buffer.append(_Waiting(entry, event_id, len(entry.body), answer, deadline))
        if self._wake is not None:
            self._wake_up()
        if deadline < self._expires:
            self._expire_at(deadline)
        return answer

    def close(self) -> None:
        """Let `run` end once nothing waits any more."""
        self._closing = True
        self._wake_up()

    async def run(self) -> None:
        """Send until the queue is closed and empty."""
        pause = FIRST_PAUSE
        try:
            while await self._has_more():
                left, of = await self._send_batch()
                if left:
                    pause = FIRST_PAUSE if left < of else pause
                    await self._clock.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                    pause = min(pause * 2, LONGEST_PAUSE)
                else:
                    pause = FIRST_PAUSE
        finally:
            if self._closing and self._expiry is not None:
                self._expiry.cancel()

    async def _has_more(self) -> bool:
        """Wait for something to send; return False when there will be none."""
        while not self._buffer:
            if self._closing or self._mode.durability is not None:
                self.ended = True
                return False
            self._wake = self._loop.create_future()
            await self._wake
        return True

    def _wake_up(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)

    async def _send_batch(self) -> tuple[int, int]:
        """Send one batch; return how many of them are to be sent again, and how many were tried."""
        async with self._appender.exclusive(self._mode):
            batch = self._in_flight = self._take()
            try:
                refusal = await self._appender.prepare({waiting.entry.stream for waiting in batch}, self._mode)
                # Who gave up meanwhile, or was told that the event is not sent, finds it not sent.
                sending = [waiting for waiting in batch if not waiting.answer.done()]
                started = self._clock.monotonic()
                results = await self._send(sending, refusal)
            except BaseException as error:
                _fail(batch, PublishUncertain(f"publishing was broken off: {error!r}"))
                if isinstance(error, Exception):  # the queue goes on, with the places of these
                    self._limit.release(len(batch), sum([waiting.size for waiting in batch]))
                raise
            finally:
                self._in_flight = []
                self._sent = False
        left = self._settle(sending, results, started)
        self._buffer.extendleft(reversed(left))
        size = sum([waiting.size for waiting in batch]) - sum([waiting.size for waiting in left])
        self._limit.release(len(batch) - len(left), size)
        return len(left), len(sending)

    async def _send(self, sending: Sequence[_Waiting], refusal: HyperbusError | None) -> list[AppendResult]:
        entries = [waiting.entry for waiting in sending]
        if refusal is not None:
            return self._appender.refuse(entries, refusal)
        self._sent = True
        ids = [waiting.event_id for waiting in sending] if self._mode.once else ()
        deadline = min([waiting.deadline for waiting in sending], default=0.0) if self._mode.durability else 0.0
        told = iter(sending)

        def tell(results: Sequence[AppendResult]) -> None:
            """Let those go on whose event is stored: they make the next ones while the server stores the rest."""
            for result, waiting in zip(results, told, strict=False):
                if isinstance(result, str) and not waiting.answer.done():
                    waiting.answer.set_result(result)

        return await self._appender.append(entries, ids, self._mode, deadline, tell)

    def _take(self) -> list[_Waiting]:
        buffer = self._buffer
        if len(buffer) <= self._most and self._limit.bytes <= BATCH_BYTES:
            batch = list(buffer)
            buffer.clear()
            return batch
        batch = []
        size = 0
        while buffer and len(batch) < self._most and size < BATCH_BYTES:
            batch.append(buffer.popleft())
            size += batch[-1].size
        return batch

    def _settle(self, batch: Sequence[_Waiting], results: Sequence[AppendResult], started: float) -> list[_Waiting]:
        """Tell each caller; return those whose event is to be sent again."""
        again: list[_Waiting] = []
        for waiting, result in zip(batch, results, strict=True):
            answer = waiting.answer
            if answer.done():
                continue
            if isinstance(result, str):
                answer.set_result(result)
            elif self._appender.may_send_again(result, self._mode):
                again.append(waiting)
                if not (waiting.uncertain or isinstance(result, BusUnavailable)):
                    self._doubt(waiting, started)
            else:
                answer.set_exception(result)
        return again

    def _doubt(self, waiting: _Waiting, sent: float) -> None:
        waiting.uncertain = True
        waiting.deadline = self._appender.last_repeat(waiting.deadline, sent)
        if waiting.deadline < self._expires:
            self._expire_at(waiting.deadline)

    def _expire_at(self, when: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expires = when
        self._expiry = self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        """End the waits that are over, and look again when the next one will be."""
        self._expiry = None
        self._expires = float("inf")
        self._expire_of(self._buffer, sent=False)
        self._expire_of(self._in_flight, sent=self._sent)
        waiting = [w.deadline for w in (*self._buffer, *self._in_flight) if not w.answer.done()]
        if waiting:
            self._expire_at(min(waiting))

    def _expire_of(self, events: Iterable[_Waiting], *, sent: bool) -> None:
        now = self._clock.monotonic()
        for waiting in events:
            if waiting.deadline > now or waiting.answer.done():
                continue
            if sent or waiting.uncertain:
                waiting.answer.set_exception(self._appender.uncertain(self._mode))
            else:
                waiting.answer.set_exception(self._appender.unavailable("the event was not sent in time"))


def _fail(batch: Iterable[_Waiting], error: HyperbusError) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
