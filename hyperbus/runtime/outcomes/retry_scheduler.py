"""Keeps deliveries that wait for their next try: no handler slot is taken, and the entry stays pending or is parked."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress

from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, HyperbusError, ServerError, WrongTypeError
from hyperbus.runtime.coordination.refusals import Refusals, is_final
from hyperbus.runtime.coordination.server_clock import ServerClock
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.key_order import KeyOrder
from hyperbus.runtime.in_flight.pending_doubt import PendingDoubt
from hyperbus.runtime.in_flight.received import Received, by_stream
from hyperbus.runtime.poison.deaths import Deaths
from hyperbus.transport import Parked

#: Waits that are longer leave the pending list.
PARK_AFTER: Seconds = 60.0
#: The longest that is slept at once.
_LONGEST_SLEEP: Seconds = 3600.0

_Key = tuple[str, bytes]


class RetryScheduler:
    """Requeues deliveries when their time has come.

    1. The count of tries and the due time are written to the server when a wait begins, and the due time is taken
       back before the next try begins: an entry that has a schedule is one whose next try nobody began.
    2. A worker that takes an entry over (`resume`) waits out what is left, and goes on counting.
    3. A wait over `PARK_AFTER` is parked: bytes and id leave the pending list, and any worker may take the entry when
       it is due. A server out of memory refuses that: then the entry stays pending and waits here.
    4. An entry that turns out to be another worker's is dropped.

    Without the server an entry is requeued all the same; only a crash then costs it a try, or its wait.
    """

    def __init__(
        self,
        member: Member,
        inbox: Inbox,
        doubt: PendingDoubt,
        order: KeyOrder | None,
        server_clock: ServerClock,
        deaths: Deaths | None = None,
    ) -> None:
        """Make one.

        Args:
            member: whose deliveries they are.
            inbox: holds them all the while, and hands them out when their time has come.
            doubt: arises where an entry turns out to be another worker's: what this one holds has to be asked for.
            order: the order of keys, where one is kept. Then no wait is parked, as others of the key have to wait as
                well, and an entry that waits without having been handed over here before reserves its place.
            server_clock: what due times are written in; waits are by the clock here, which nobody sets.
            deaths: tells tries from deaths; by default one that takes every worker that is gone for dead.
        """
        self._member = member
        self._inbox = inbox
        self._doubt = doubt
        self._order = order
        self._server_clock = server_clock
        #: For whoever takes entries over: asked before `resume`.
        self.deaths = deaths or Deaths(member, inbox)
        self._waiting: dict[_Key, Received] = {}
        self._heap: list[tuple[float, int, Received]] = []
        self._sequence = itertools.count()
        #: Due times, on the monotonic clock, that the server does not know yet.
        self._unsaved: dict[_Key, float] = {}
        self._save_at = float("-inf")
        self._changed = asyncio.Event()
        self._refusals = Refusals(member.announcer, f"retries of {member.group}")

    def add(self, received: Received, after: Seconds) -> None:
        """Let a delivery be tried again in `after` seconds."""
        received.retried()
        self._wait(received, after)
        if not self._is_disowned(received):  # else the server knows nothing of it, or gave its id to another event
            self._unsaved[_key(received)] = self._member.clock.monotonic() + after
        self._changed.set()

    def waiting(self) -> list[Received]:
        """Return the deliveries whose next try has not come yet."""
        return list(self._waiting.values())

    async def resume(self, stream: str, items: Sequence[Received], *, claimed: bool) -> list[Received]:
        """Return which of the entries that this worker came by are to be handed over now; the others wait here.

        `claimed`: the claim has raised their tries, which is undone where the next try had not begun.

        Raises:
            BusUnavailable: the server cannot be reached; what it knows of the entries is still unknown.
        """
        asked = [item for item in items if item.tries > 1]  # a schedule is never without a failure before it
        due_times = await self._due_times(stream, asked)
        scheduled = [item for item in asked if item.id in due_times]
        if not scheduled:
            return list(items)
        now = await self._server_clock.now()
        for item in scheduled:
            item.resumed(claimed=claimed)
        waits = {item.id: due_times[item.id] - now for item in scheduled if due_times[item.id] > now}
        for item in self._inbox.hold(stream, [item for item in scheduled if item.id in waits]):
            if self._order is None or self._order.reserve(item):
                self._wait(item, waits[item.id])
                if waits[item.id] > PARK_AFTER and self._order is None:
                    self._unsaved[_key(item)] = self._member.clock.monotonic() + waits[item.id]
        self._changed.set()
        begun = [item.id for item in scheduled if item.id not in waits]
        if begun:
            await self._member.streams.forget_retries(stream, self._member.group, begun)
        return [item for item in items if item.id not in waits]

    async def run(self) -> None:
        """Requeue what is due until cancelled."""
        while True:
            if self._unsaved and self._save_at <= self._member.clock.monotonic():
                await self._save()
            await self._requeue_due()
            self._changed.clear()
            try:
                async with asyncio.timeout(self._idle()):
                    await self._changed.wait()
            except TimeoutError:
                pass

    # -- waiting

    def _wait(self, received: Received, after: Seconds) -> None:
        self._waiting[_key(received)] = received
        heapq.heappush(self._heap, (self._member.clock.monotonic() + after, next(self._sequence), received))

    def _idle(self) -> Seconds:
        """Return how long there is nothing to do, unless something is added."""
        moments = [self._heap[0][0]] if self._heap else []
        if self._unsaved:
            moments.append(self._save_at)
        return max(0.0, min((moment - self._member.clock.monotonic() for moment in moments), default=_LONGEST_SLEEP))

    async def _requeue_due(self) -> None:
        now = self._member.clock.monotonic()
        due: list[Received] = []
        while self._heap and self._heap[0][0] <= now:
            received = heapq.heappop(self._heap)[2]
            if self._waiting.get(_key(received)) is received:
                due.append(received)
        try:
            for stream, items in by_stream(due).items():
                with suppress(ServerError):  # a stream that refuses harms no other
                    await self._member.streams.forget_retries(stream, self._member.group, [item.id for item in items])
        except HyperbusError:
            pass  # a crash in the next try will look like one before it
        except Exception:
            self._requeue(due)
            raise
        self._requeue(due)

    def _requeue(self, due: Sequence[Received]) -> None:
        for received in reversed(due):  # each goes before all others
            self._unsaved.pop(_key(received), None)
            if self._waiting.pop(_key(received), None) is not None:
                self._inbox.requeue(received)

    # -- schedules on the server

    async def _due_times(self, stream: str, items: Sequence[Received]) -> dict[bytes, float]:
        if not items:
            return {}
        ids = [item.id for item in items]
        try:
            found = await self._member.streams.retry_times(stream, self._member.group, ids)
        except WrongTypeError:
            return {}  # whatever lies there is no schedule
        return {entry_id: due for entry_id, due in zip(ids, found, strict=True) if due is not None}

    async def _save(self) -> None:
        """Tell the server of waits that it does not know of; what it does not hear is told it again later."""
        unsaved, self._unsaved = self._unsaved, {}
        failure: HyperbusError | None = None
        for stream, items in by_stream(self._to_be_told(unsaved)).items():
            due = {item.id: unsaved[_key(item)] for item in items}
            if not isinstance(failure, BusUnavailable):
                error = await self._save_stream(stream, items, due)
                failure = error or failure
                if error is None:
                    continue
            self._unsaved = {(stream, entry_id): moment for entry_id, moment in due.items()} | self._unsaved
        if failure is None:
            self._refusals.succeeded()
        else:
            self._save_at = self._member.clock.monotonic() + self._refusals.failed(failure)

    def _to_be_told(self, unsaved: Iterable[_Key]) -> list[Received]:
        waiting = [self._waiting[key] for key in unsaved if key in self._waiting]
        return [item for item in waiting if not self._is_disowned(item)]

    def _is_disowned(self, received: Received) -> bool:
        return self._member.era.disowns(received.stream, received.id, received.era)

    async def _save_stream(
        self, stream: str, items: Sequence[Received], due: dict[bytes, float]
    ) -> HyperbusError | None:
        """Tell the server of waits in one stream, until when by the clock here; return why it is to be told again."""
        try:
            at = await self._server_clock.at_zero()
            due = {entry_id: moment + at for entry_id, moment in due.items()}
            left = await self._park(stream, items, due, at + self._member.clock.monotonic() + PARK_AFTER)
            await self._schedule(stream, left, due)
        except (BusUnavailable, ServerError) as error:
            # the group is gone, or the stream: nothing is pending, and what is made anew comes again
            return None if is_final(error) else error
        return None

    async def _park(
        self, stream: str, items: Sequence[Received], due: dict[bytes, float], limit: float
    ) -> list[Received]:
        """Park what waits beyond `limit`; return what stays pending."""
        long = [item for item in items if self._order is None and due[item.id] > limit]
        if not long:
            return list(items)
        entries = [Parked(item.id, item.fields, item.tries - 1, item.first_time, due[item.id]) for item in long]
        try:
            parked = await self._member.streams.park(stream, self._member.group, self._member.consumer, entries)
        except ServerError:
            return list(items)
        gone = {item.id for item, is_parked in zip(long, parked, strict=True) if is_parked}
        self._drop(stream, gone)
        return [item for item in items if item.id not in gone]

    async def _schedule(self, stream: str, items: Sequence[Received], due: dict[bytes, float]) -> None:
        if not items:
            return
        written = await self._member.streams.schedule_retries(
            stream,
            self._member.group,
            self._member.consumer,
            [(item.id, item.delivery_count, due[item.id]) for item in items],
        )
        lost = {item.id for item, is_written in zip(items, written, strict=True) if not is_written}
        if lost and self._order is None:  # what waits behind it would wait for ever
            for item in items:
                if item.id in lost:
                    item.handed_over()
            self._drop(stream, lost)
            self._doubt.arise_urgently()

    def _drop(self, stream: str, ids: set[bytes]) -> None:
        for entry_id in ids:
            self._waiting.pop((stream, entry_id), None)
        self._inbox.release(stream, ids)


def _key(received: Received) -> _Key:
    return received.stream, received.id
