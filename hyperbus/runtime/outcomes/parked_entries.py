"""Takes parked entries when they are due, and tells the server how they ended. The retry scheduler parks them."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TypeVar

from hyperbus.clock import Seconds
from hyperbus.errors import GroupNotFoundError, HyperbusError, ServerError, WrongTypeError
from hyperbus.runtime.coordination.refusals import Refusals
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.group.stream_set import StreamSet
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import Received, by_stream, take_from_parked
from hyperbus.runtime.outcomes.dead_letter import announce_dead_letter, letter_of
from hyperbus.runtime.poison.start_counts import StartCounts
from hyperbus.signals import Acknowledged
from hyperbus.transport import DeadLetter, Parked, Records, Streams, Transport

#: How long an entry is held without a sign from its worker, in times that a worker counts as alive.
LEASE_TTLS = 1.5
#: How long it may take until an entry that another worker has parked is known here; they wait much longer.
LOOK: Seconds = 5.0
#: How long what is due is left to workers that can begin it at once.
_OTHERS_TAKE: Seconds = 0.5
#: When to look again for what is due but was not taken, as for want of room.
_LOOK_SOON: Seconds = 0.2
#: Takings after which an entry is suspected: of those that came late, so that somebody may have died with it.
_INNOCENT = 1

ItemT = TypeVar("ItemT")


class ParkedEntries:
    """Holds parked entries while they are handled.

    1. Looks when the next entry is due, takes it for a lease, and puts it into the inbox as far as there is room.
    2. The lease is renewed for as long as the entry is held, from the heartbeat's thread (`keep`): a handler may block
       the event loop. When this worker dies, another one takes the entry after the lease.
    3. When a delivery has ended, tells the server until it has answered: finished, given back, or a dead letter.
    4. Leases are reckoned in the server's time, so that clocks which differ take nothing away from anybody.
    """

    def __init__(
        self, member: Member, inbox: Inbox, stream_set: StreamSet, records: Records, *, lease: Seconds
    ) -> None:
        self._member = member
        self._inbox = inbox
        self._stream_set = stream_set
        self._records = records
        self._lease = lease
        #: Takings are counted apart from what is begun alone.
        self._takings = StartCounts.of_takings(member)
        self._held: dict[str, dict[bytes, Received]] = {}
        self._lock = threading.Lock()  # of what is held: two threads look
        self._loop = asyncio.get_running_loop()
        #: Entries whose takings are counted on the server.
        self._counted: set[tuple[str, bytes]] = set()
        self._finished: dict[str, list[bytes]] = {}
        self._given_back: dict[str, list[tuple[bytes, int, float]]] = {}
        self._letters: list[tuple[str, DeadLetter]] = []
        self._offset = 0.0
        self._changed = asyncio.Event()
        self._look = asyncio.Event()
        self._closing = False
        #: What the server refuses of taking entries, and of hearing how they ended.
        self._takes = Refusals(member.announcer, f"taking parked entries of {member.group}")
        self._ends = Refusals(member.announcer, f"ends of parked entries of {member.group}")

    # -- how deliveries end

    def finish(self, received: Sequence[Received]) -> Sequence[Received]:
        """Finish those of these entries that are parked and done with; return the others."""
        if not self._held:
            return received
        done: list[Received] = []
        others: list[Received] = []
        for item in received:
            (done if item.id in self._held.get(item.stream, ()) else others).append(item)
        if not done:
            return received
        for stream, items in by_stream(done).items():
            self._finished.setdefault(stream, []).extend(item.id for item in items)
        self._changed.set()
        return others

    def try_again(self, received: Received, after: Seconds) -> None:
        """Give an entry back, to be tried again in `after` seconds by whoever takes it then."""
        self._give_back(received, received.tries, after)

    def dead_letter(self, received: Received, reason: str, error: BaseException | None) -> None:
        """Let an entry become a dead letter soon."""
        letter = letter_of(received, reason, error, self._member.clock.now())
        self._letters.append((received.stream, letter))
        self._changed.set()

    def give_back(self, received: Iterable[Received]) -> list[Received]:
        """Give back those entries that are parked ones, and that nobody began to handle; return the others."""
        others: list[Received] = []
        for item in received:
            if item.parked:
                self._give_back(item, item.tries - 1, 0.0)
            else:
                others.append(item)
        return others

    def look_soon(self, _notice: bytes = b"") -> None:
        """Look now whether something is due: another worker has given it back."""
        self._look.set()

    def held_of(self, stream: str) -> set[bytes]:
        """Return the ids of what is held of a stream: it is parked, and not pending."""
        with self._lock:
            return set(self._held.get(stream, ()))

    def close(self) -> None:
        """Let `run` end once the server knows of everything that has ended."""
        self._closing = True
        self._changed.set()

    async def leave(self) -> None:
        """Give back what is still held: its handler was cut off, which counts as a try."""
        ended = {(stream, letter.entry_id) for stream, letter in self._letters}
        ended |= {(stream, change[0]) for stream, changes in self._given_back.items() for change in changes}
        ended |= {(stream, entry_id) for stream, ids in self._finished.items() for entry_id in ids}
        for stream, held in self._held.items():
            for item in held.values():
                if (stream, item.id) not in ended:
                    self._give_back(item, item.tries, 0.0)
        with suppress(HyperbusError):  # failing leaves it to the end of the lease
            await self._tell()

    # -- the two tasks

    async def take(self) -> None:
        """Take what is due until cancelled."""
        while True:
            self._look.clear()
            try:
                idle = await self._take_due()
            except HyperbusError as error:
                idle = self._takes.failed(error)
            else:
                self._takes.succeeded()
            with suppress(TimeoutError):
                async with asyncio.timeout(idle):
                    await self._look.wait()

    async def run(self) -> None:
        """Tell the server how deliveries ended, until closed."""
        while True:
            self._changed.clear()
            try:
                await self._tell()
            except HyperbusError as error:
                await self._member.clock.sleep(self._ends.failed(error))
                continue
            self._ends.succeeded()
            if self._closing and not (self._finished or self._given_back or self._letters):
                return
            await self._changed.wait()

    async def keep(self, transport: Transport) -> None:
        """Renew the leases of what is held. Called in another thread, with a connection of that one's own.

        Raises:
            BusUnavailable: the server is away.
        """
        with self._lock:
            held = {stream: dict(items) for stream, items in self._held.items()}
        now = await transport.records.server_time() if held else 0.0
        for stream, items in held.items():
            lost = await self._renew(transport.streams, stream, items, now)
            if lost:
                self._loop.call_soon_threadsafe(self._lose, stream, lost)

    # -- taking

    async def _take_due(self) -> Seconds:
        """Take what is due; return how long there is nothing more to take."""
        names, member = self._stream_set.names, self._member
        if not names:
            return LOOK
        moments = await member.streams.next_parked([(name, member.group) for name in names])
        parked = {name: moment for name, moment in zip(names, moments, strict=True) if moment is not None}
        if not parked:
            return LOOK
        now = await self._now()
        for name, moment in parked.items():
            if moment <= now:
                room = self._room(now - moment)
                if not room:
                    return _LOOK_SOON
                await self._take_from(name, room, now)
        # of what was due there may be more than was taken at once
        idle = min(moment - now if moment > now else _LOOK_SOON for moment in parked.values())
        return min(LOOK, idle) + random.uniform(0.0, 0.02)  # noqa: S311 - not every worker at once

    def _room(self, late: Seconds) -> int:
        """Return how many due entries to take: what begins soon; one of those that nobody else has taken either."""
        wanted = self._inbox.wanted()
        if not wanted and late > _OTHERS_TAKE and not self._inbox.waiting:
            wanted = 1
        return min(wanted, self._inbox.room())

    async def _take_from(self, stream: str, room: int, now: float) -> None:
        member = self._member
        asked = member.clock.monotonic()
        taken = await member.streams.take_parked(
            stream, member.group, member.consumer, now=now, lease=self._lease, count=room
        )
        new = [entry for entry in taken if not self._inbox.holds(stream, entry.entry_id)]
        if not new:
            return
        received = take_from_parked(stream, self._stream_set.type_in(stream), new)
        with self._lock:
            held = self._held.setdefault(stream, {})
            held.update((item.id, item) for item in received)
        if member.clock.monotonic() - asked > self._lease / 2:  # the answer came late, or the event loop was blocked
            await self._make_sure(stream, received)
        await self._suspect(stream, new, received, now)
        self._inbox.put(stream, [item for item in received if held.get(item.id) is item])

    async def _make_sure(self, stream: str, received: Sequence[Received]) -> None:
        """Find out which leases are still ours, and forget the others."""
        items = {item.id: item for item in received}
        try:
            lost = await self._renew(self._member.streams, stream, items, await self._now())
        except HyperbusError:
            self._lose(stream, received)  # nobody handles them here: their leases have to end
            raise
        self._lose(stream, lost)

    async def _suspect(self, stream: str, taken: Sequence[Parked], received: Sequence[Received], now: float) -> None:
        """Count the taking of entries that came late: perhaps whoever took them before died of them."""
        late = [item for entry, item in zip(taken, received, strict=True) if now - entry.due > self._lease]
        if not late:
            return
        with suppress(HyperbusError):
            counts = await self._takings.count(stream, [item.id for item in late])
            for item, count in zip(late, counts, strict=True):
                if count > _INNOCENT:
                    item.suspected()
                self._counted.add((stream, item.id))

    async def _now(self) -> float:
        """Return the server's time, and remember how the monotonic clock here differs from it."""
        now = await self._records.server_time()
        self._offset = now - self._member.clock.monotonic()
        return now

    # -- telling the server

    def _give_back(self, received: Received, tries: int, after: Seconds) -> None:
        due = self._member.clock.monotonic() + self._offset + after
        self._given_back.setdefault(received.stream, []).append((received.id, tries, due))
        self._changed.set()

    async def _renew(
        self, streams: Streams, stream: str, items: Mapping[bytes, Received], now: float
    ) -> list[Received]:
        """Renew leases; return what is another worker's by now, or nobody's."""
        ids, member = list(items), self._member
        try:
            kept = await streams.renew_parked(stream, member.group, member.consumer, ids, now=now, lease=self._lease)
        except ServerError:
            return []  # what cannot be renewed is handled, and perhaps handled again
        return [items[entry_id] for entry_id, is_kept in zip(ids, kept, strict=True) if not is_kept]

    def _lose(self, stream: str, lost: Iterable[Received]) -> None:
        """Forget leases that are lost, unless their entries were taken anew."""
        held = self._held.get(stream, {})
        gone = [item.id for item in lost if held.get(item.id) is item]
        self._forget(stream, gone)
        self._counted.difference_update((stream, entry_id) for entry_id in gone)

    async def _tell(self) -> None:
        """Tell of everything that has ended.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses; what it was not told is kept.
        """
        refusal: ServerError | None = None
        for tell, streams in (
            (self._tell_finished, list(self._finished)),
            (self._tell_given_back, list(self._given_back)),
            (self._tell_letters, list(dict.fromkeys(stream for stream, _ in self._letters))),
        ):
            for stream in streams:  # one that is refused harms no other
                try:
                    await tell(stream)
                except ServerError as error:
                    refusal = error
        if refusal is not None:
            raise refusal

    async def _tell_finished(self, stream: str) -> None:
        member, ids = self._member, list(self._finished[stream])
        with _nothing_there():
            await member.streams.finish_parked(stream, member.group, member.consumer, ids)
        _strike(self._finished, stream, len(ids))
        await self._end(stream, ids)
        member.announcer.announce(Acknowledged(member.group, len(ids)))

    async def _tell_given_back(self, stream: str) -> None:
        member, changes = self._member, list(self._given_back[stream])
        with _nothing_there():
            await member.streams.reschedule_parked(stream, member.group, member.consumer, changes)
        _strike(self._given_back, stream, len(changes))
        await self._end(stream, [entry_id for entry_id, _, _ in changes])
        self._look.set()

    async def _tell_letters(self, stream: str) -> None:
        member = self._member
        for item in [item for item in self._letters if item[0] == stream]:
            letter, moved = item[1], False
            with _nothing_there():
                (moved,) = await member.streams.dead_letter_parked(stream, member.group, member.consumer, [letter])
            self._letters.remove(item)
            await self._end(stream, [letter.entry_id])
            if moved:
                announce_dead_letter(member, stream, letter)

    async def _end(self, stream: str, ids: Sequence[bytes]) -> None:
        """Forget entries that have ended."""
        self._forget(stream, ids)
        self._inbox.release(stream, ids)
        counted = [entry_id for entry_id in ids if (stream, entry_id) in self._counted]
        self._counted.difference_update((stream, entry_id) for entry_id in counted)
        if counted:
            with suppress(HyperbusError):
                await self._takings.forget(stream, counted)

    def _forget(self, stream: str, ids: Iterable[bytes]) -> None:
        with self._lock:
            held = self._held.get(stream, {})
            for entry_id in ids:
                held.pop(entry_id, None)
            if not held:
                self._held.pop(stream, None)


def _nothing_there() -> AbstractContextManager[None]:
    """Pass over what cannot be helped: whatever lies at the key, it is no parked entry."""
    return suppress(WrongTypeError, GroupNotFoundError)


def _strike(told: dict[str, list[ItemT]], stream: str, count: int) -> None:
    """Strike off what was picked; more may have come meanwhile."""
    del told[stream][:count]
    if not told[stream]:
        del told[stream]
