"""Takes over what dead workers of a group left pending. Never from a worker that lives, however long it takes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeVar

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import BusUnavailable, HyperbusError
from hyperbus.runtime.in_flight.inbox import Inbox, Received, receive
from hyperbus.signals import Announcer, Claimed
from hyperbus.transport import FIRST_ID, Streams

#: How often a group is looked over, before jitter.
SWEEP: Seconds = 0.4
#: How long the right to look a group over is kept without being used.
LEASE: Seconds = 1.0
#: How often checkpoints are saved, or looked at.
CHECKPOINT: Seconds = 1.0
#: How often dead consumers are looked for that have nothing pending.
TIDY: Seconds = 10.0
#: How often a worker asks whether more is pending with it than it knows of.
RECOUNT: Seconds = 5.0
#: Entries that are claimed in one round trip, at most; more would hold the server too long.
PAGE = 100
#: The part of a TTL that an answer may take. After a longer one the living may not have had their chance either.
_STALL = 1 / 3

_Answer = TypeVar("_Answer")


class Right(Protocol):
    """The right to look a group over; see `lease.Lease`."""

    async def hold(self) -> bool:
        """Take or keep it; tell whether it is held."""
        ...

    async def release(self) -> None:
        """Give it up."""
        ...


class Progress(Protocol):
    """How far the group has come; see `checkpoints.Checkpoints`."""

    async def save(self, names: Sequence[str]) -> None:
        """Save it."""
        ...

    async def load(self, names: Sequence[str]) -> None:
        """Remember what is saved."""
        ...


class Resume(Protocol):
    """Lets entries wait out their next try; see `retrier.Retrier.resume`."""

    async def __call__(self, stream: str, items: Sequence[Received], *, claimed: bool) -> Sequence[Received]:
        """Return those that are to be handed over now."""
        ...


class Reclaimer:
    """Looks over one group.

    1. Holds the group's lease while it has room and may judge, so that one worker sweeps and not all of them.
    2. A consumer with pending entries and no heartbeat is dead. Nobody is dead before this worker has seen the
       server for one whole TTL without a break: until then the living may not have had their chance to say so.
       A server that took long to answer was away too.
    3. Claims page by page, as far as there is room; each claim checks that the dead one still owns the entry.
    4. Removes a dead consumer from the group once it has nothing pending.
    5. Asks, now and then, whether more is pending with this worker than it knows of: nobody else would take it.
    6. Says until when this worker may read, for a group that is ordered: only who holds the lease may, and only once
       nobody else has anything pending, so that no later event overtakes an earlier one in another process. There it
       claims nothing while a claim may have been answered unheard: what it brought is older.
    7. Saves how far the group has come, while it holds the lease; otherwise remembers what was saved.
    """

    def __init__(
        self,
        streams: Streams,
        inbox: Inbox,
        right: Right,
        announcer: Announcer,
        clock: Clock,
        *,
        group: str,
        consumer: str,
        ttl: Seconds,
        alive: Callable[[Sequence[str]], Awaitable[Sequence[bool]]],
        names: Callable[[], Sequence[str]],
        type_in: Callable[[str], str],
        claims_uncertain: Callable[[], None],
        is_recovering: Callable[[], bool],
        innocent: int,
        checkpoints: Progress,
        ordered: bool,
        resume: Resume,
    ) -> None:
        self._streams = streams
        self._inbox = inbox
        self._right = right
        self._announcer = announcer
        self._clock = clock
        self._group = group
        self._consumer = consumer
        self._ttl = ttl
        self._alive = alive
        self._names = names
        self._type_in = type_in
        self._claims_uncertain = claims_uncertain
        self._is_recovering = is_recovering
        #: Deliveries up to which an entry is no suspect.
        self._innocent = innocent
        self._seen_since = clock.monotonic()
        self._checkpoints = checkpoints
        self._resume = resume
        self._ordered = ordered
        self._held_since: float | None = None
        self._turn_until = 0.0
        self._checkpoints_at = float("-inf")
        self._tidied_at = clock.monotonic()
        self._recounted_at = clock.monotonic()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await self._clock.sleep(SWEEP * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            try:
                await self.sweep()
            except BusUnavailable:
                self._seen_since = self._clock.monotonic()
                self._lose_turn()
                self._claims_uncertain()  # a claim that was answered unheard left entries with this worker
            except HyperbusError:
                continue  # a stream is gone, or is none: the reader deals with it

    async def sweep(self) -> int:
        """Look the group over once; return how many entries were claimed.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses a stream.
        """
        names = tuple(self._names())
        if not names:
            return 0
        await self._recount(names)
        asked = self._clock.monotonic()
        if not await self._hear(self._right.hold()):
            self._lose_turn()
            await self._look_at_checkpoints(names, self._checkpoints.load)
            return 0
        if not self._ordered and not self._may_judge():
            await self._look_at_checkpoints(names, self._checkpoints.save)
            await self._right.release()  # another worker may judge already
            return 0
        summaries = await self._hear(self._streams.pending_summaries([(name, self._group) for name in names]))
        owners = {owner for summary in summaries for owner in summary.consumers if owner != self._consumer}
        dead = await self._dead(sorted(owners))
        claimed = 0
        for name, summary in zip(names, summaries, strict=True):
            if self._ordered:
                claimed += await self._claim_in_order(name, summary.consumers.keys() - {self._consumer}, dead)
                continue
            for owner in dead & summary.consumers.keys():
                claimed += await self._claim_all(name, owner)
        for owner in dead | await self._dead_without_pending(names):
            await self._streams.remove_consumer(self._group, owner, names)
        self._take_turn(asked, any(owners))
        await self._look_at_checkpoints(names, self._checkpoints.save)
        return claimed

    def may_read_until(self) -> float:
        """Return until when this worker may read, on the monotonic clock, if its group is ordered."""
        return self._turn_until

    def _lose_turn(self) -> None:
        self._held_since = None
        self._turn_until = 0.0

    def _take_turn(self, asked: float, others_pending: bool) -> None:
        if self._held_since is None:
            self._held_since = asked
        # a worker that had the lease before may still be in a read that it began just before it lost it
        if not others_pending and (self._turn_until or asked - self._held_since >= LEASE):
            self._turn_until = asked + LEASE

    async def _look_at_checkpoints(
        self, names: Sequence[str], look: Callable[[Sequence[str]], Awaitable[None]]
    ) -> None:
        now = self._clock.monotonic()
        if now - self._checkpoints_at >= CHECKPOINT:
            self._checkpoints_at = now
            await look(names)

    async def _recount(self, names: Sequence[str]) -> None:
        """Find out, now and then, whether entries were handed over to this worker whose notice was lost."""
        now = self._clock.monotonic()
        if now - self._recounted_at < RECOUNT:
            return
        self._recounted_at = now
        summaries = await self._streams.pending_summaries([(name, self._group) for name in names])
        for name, summary in zip(names, summaries, strict=True):
            if summary.consumers.get(self._consumer, 0) > self._inbox.held_of(name):
                self._claims_uncertain()

    async def _dead_without_pending(self, names: Sequence[str]) -> set[str]:
        """Return, now and then, dead consumers that have nothing pending and so show up nowhere else."""
        now = self._clock.monotonic()
        if now - self._tidied_at < TIDY:
            return set()
        self._tidied_at = now
        consumers = await self._streams.consumers([(name, self._group) for name in names])
        return await self._dead(sorted({name for found in consumers for name in found if name != self._consumer}))

    async def _dead(self, owners: Sequence[str]) -> set[str]:
        if not owners or not self._may_judge():
            return set()
        alive = await self._hear(self._alive(owners))
        if not self._may_judge():
            return set()
        return {owner for owner, is_alive in zip(owners, alive, strict=True) if not is_alive}

    def _may_judge(self) -> bool:
        return self._clock.monotonic() - self._seen_since >= self._ttl

    async def _hear(self, answer: Awaitable[_Answer]) -> _Answer:
        """Wait for an answer, and note when it took so long that heartbeats may have run out meanwhile."""
        asked = self._clock.monotonic()
        heard = await answer
        now = self._clock.monotonic()
        if now - asked > self._ttl * _STALL:
            self._seen_since = now
        return heard

    async def _claim_all(self, stream: str, owner: str) -> int:
        """Claim what `owner` left in one stream, as far as there is room."""
        claimed = 0
        while True:
            room = min(self._inbox.room(), PAGE)
            if not room:
                if not self._ordered:
                    await self._right.release()  # another worker may have room
                return claimed
            left = await self._streams.pending(stream, self._group, consumer=owner, after=FIRST_ID, count=room)
            if not left:
                return claimed
            claimed += await self._claim(stream, owner, [entry.id for entry in left])

    async def _claim_in_order(self, stream: str, owners: AbstractSet[str], dead: AbstractSet[str]) -> int:
        """Claim what dead owners left in a stream of an ordered group, oldest first, whoever had it.

        While one that lives, or may live, has something pending, nothing is claimed: it could be older. Two workers may
        sweep at once, where a sweep took longer than the lease: the one that has claimed the oldest gets all.
        """
        if owners - dead or self._is_recovering():
            return 0
        claimed, after = 0, FIRST_ID
        while owners and (room := min(self._inbox.room(), PAGE)):
            page = await self._streams.pending(stream, self._group, after=after, count=room)
            for owner, left in itertools.groupby(page, key=lambda entry: entry.consumer):
                if owner == self._consumer:
                    continue
                if owner not in owners:
                    return claimed
                ids = [entry.id for entry in left]
                taken = await self._claim(stream, owner, ids)
                claimed += taken
                if taken < len(ids):
                    break  # some are gone, or another worker's: look again before claiming newer ones
            else:
                if len(page) < room:
                    break
                after = page[-1].id
        return claimed

    async def _claim(self, stream: str, owner: str, ids: Sequence[bytes]) -> int:
        taken = await self._streams.claim(stream, self._group, self._consumer, ids, owner=owner, in_order=self._ordered)
        received = receive(stream, self._type_in(stream), [entry for entry, _ in taken], self._clock.now())
        for item, (_, count) in zip(received, taken, strict=True):
            item.tries = count
            item.alone = item.suspect = count > self._innocent
        self._inbox.put(stream, await self._resume(stream, received, claimed=True))
        if taken:
            self._announcer.announce(Claimed(self._group, stream, len(taken), owner))
        return len(taken)
