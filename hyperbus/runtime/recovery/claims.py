"""How what dead workers left is claimed: page by page, as far as there is room, and in order where one is kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress

from hyperbus.errors import HyperbusError
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.group.stream_set import StreamSet
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.pending_doubt import PendingDoubt
from hyperbus.runtime.in_flight.received import Received, receive
from hyperbus.runtime.outcomes.retry_scheduler import RetryScheduler
from hyperbus.runtime.poison.start_counts import INNOCENT, StartCounts
from hyperbus.signals import Claimed
from hyperbus.transport import FIRST_ID, readable

#: Entries that are claimed in one round trip, at most; more would hold the server too long.
PAGE = 100


class Claims:
    """Claims for one worker; each claim checks that the dead one still owns the entry."""

    def __init__(
        self, member: Member, inbox: Inbox, stream_set: StreamSet, retries: RetryScheduler, doubt: PendingDoubt
    ) -> None:
        self._member = member
        self._inbox = inbox
        self._stream_set = stream_set
        self._retries = retries
        self._doubt = doubt
        self._unbegun = StartCounts.of_unbegun(member)

    async def forget_ended(self) -> None:
        """Forget the deaths of what was claimed here and has ended."""
        await self._retries.deaths.forget_ended()

    async def claim_all(self, stream: str, owner: str) -> int:
        """Claim what a dead `owner` left in one stream, as far as there is room; return how many entries.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses the stream.
        """
        member, claimed, stuck = self._member, 0, b""
        while room := min(self._inbox.room(), PAGE):
            left = await member.streams.pending(stream, member.group, consumer=owner, after=FIRST_ID, count=room)
            if not left:
                break
            taken = await self._claim(stream, owner, [entry.id for entry in left], in_order=False)
            claimed += taken
            if not taken and left[0].id == stuck:
                break  # it is not to be had, whatever the reason: the next sweep knows more
            stuck = left[0].id
        return claimed

    async def claim_in_order(self, stream: str, owners: AbstractSet[str], dead: AbstractSet[str]) -> int:
        """Claim what dead owners left in a stream of an ordered group, oldest first, whoever had it; return how many.

        While one that lives, or may live, has something pending, nothing is claimed: it could be older. Nor while a
        claim may have been answered unheard: what it brought is older. Two workers may sweep at once, where a sweep
        took longer than the lease: the one that has claimed the oldest gets all.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses the stream.
        """
        if owners - dead or self._doubt.unsettled:
            return 0
        member, claimed, after, stuck = self._member, 0, FIRST_ID, b""
        while owners and (room := min(self._inbox.room(), PAGE)):
            page = await member.streams.pending(stream, member.group, after=after, count=room)
            for owner, left in itertools.groupby(page, key=lambda entry: entry.consumer):
                if owner == member.consumer:
                    continue
                if owner not in owners:
                    return claimed
                ids = [entry.id for entry in left]
                taken = await self._claim(stream, owner, ids, in_order=True)
                claimed += taken
                if taken < len(ids):
                    if not taken and ids[0] == stuck:
                        return claimed  # it is not to be had, whatever the reason: the next sweep knows more
                    stuck = ids[0]
                    break  # some are gone, or another worker's: look again before claiming newer ones
            else:
                if len(page) < room:
                    break
                after = page[-1].id
        return claimed

    async def _claim(self, stream: str, owner: str, ids: Sequence[bytes], *, in_order: bool) -> int:
        try:
            return await self._take_over(stream, owner, ids, in_order=in_order)
        except HyperbusError:
            self._doubt.arise()  # a part may have been done
            raise

    async def _take_over(self, stream: str, owner: str, ids: Sequence[bytes], *, in_order: bool) -> int:
        member = self._member
        if member.era.is_over:
            return 0  # what is held has to be compared with the server first
        taken = await member.streams.claim(stream, member.group, member.consumer, ids, owner=owner, in_order=in_order)
        entries, now = [entry for entry, _ in taken], member.clock.now()
        received = receive(stream, self._stream_set.type_in(stream), entries, now, member.era.current)
        deaths = await self._retries.deaths.count(stream, owner, [item.id for item in received]) if received else {}
        for item, (_, count) in zip(received, taken, strict=True):
            item.claimed(count, innocent=INNOCENT, deaths=(deaths or {}).get(item.id, 0))
        self._retries.deaths.keep(received)
        if in_order:
            await self._spare_unbegun(stream, received)
        self._inbox.put(stream, await self._retries.resume(stream, received, claimed=deaths is None))
        if taken:
            member.announcer.announce(Claimed(member.group, stream, len(taken), readable(owner)))
        return len(taken)

    async def _spare_unbegun(self, stream: str, received: Iterable[Received]) -> None:
        """Clear of suspicion what nobody has begun since an earlier claim; note that what is no suspect is unbegun.

        An ordered group's one reader holds as much as it may. Without this all of that is suspect once two have died.
        """
        suspects = [item for item in received if item.suspect]
        with suppress(HyperbusError):  # then they are suspects
            found = await self._unbegun.known(stream, [item.id for item in suspects]) if suspects else []
            for item, times in zip(suspects, found, strict=True):
                if times:
                    item.kept_unbegun()
        fresh = [item for item in received if not (item.suspect or item.unbegun)]
        for item in fresh:
            item.kept_unbegun()
        with suppress(HyperbusError):  # then they are suspects when this worker dies
            if fresh:
                await self._unbegun.count(stream, [item.id for item in fresh])
