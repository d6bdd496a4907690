"""Finds again what is pending with this worker without its knowing: a read broke off, or a leaving worker gave it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hyperbus.errors import BusUnavailable, HyperbusError
from hyperbus.runtime.coordination.refusals import FIRST_PAUSE, LONGEST_PAUSE
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.group.stream_set import StreamSet
from hyperbus.runtime.group.stream_turns import MANY
from hyperbus.runtime.group.unread_losses import UnreadLosses
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.pending_doubt import PendingDoubt
from hyperbus.runtime.in_flight.received import receive
from hyperbus.runtime.outcomes.parked_entries import ParkedEntries
from hyperbus.runtime.outcomes.retry_scheduler import RetryScheduler
from hyperbus.signals import Disowned, Recovered
from hyperbus.transport import FIRST_ID, Reader

#: Pending entries that are read again at a time: the server looks each of them up, and does nothing else meanwhile.
RECOVER_PAGE = 100
#: Pending entries that are asked for at a time, without their bytes.
PENDING_PAGE = 1_000


class PendingRecovery:
    """Settles the doubt: takes in what is pending with this worker and not held by it. Called by who reads."""

    def __init__(
        self,
        member: Member,
        connection: Reader,
        stream_set: StreamSet,
        inbox: Inbox,
        doubt: PendingDoubt,
        retries: RetryScheduler,
        losses: UnreadLosses,
        parked: ParkedEntries,
    ) -> None:
        self._member = member
        self._connection = connection
        self._stream_set = stream_set
        self._inbox = inbox
        self._doubt = doubt
        self._retries = retries
        #: What is to be looked for before a read, as reading may hide it.
        self.losses = losses
        self._amiss = False
        #: By stream, delivery counts that a read has raised which then broke off.
        self._raised: dict[str, dict[bytes, int]] = {}
        self._parked = parked
        self._era = member.era
        self._beginning = asyncio.Lock()

    async def interrupt_reads(self) -> None:
        """Interrupt a read that waits whenever the doubt is urgent; until cancelled."""
        while True:
            await self._doubt.urgent()
            self._inbox.interrupt()
            await self._connection.wake()

    async def settle(self) -> None:
        """Ask for what is pending, stream by stream, and take in what is not held.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses; the doubt stays.
        """
        with self._doubt.settling() as amiss:
            self._amiss = amiss
            await self._begin_era()
            for stream in await self._doubtful():
                await self._recover_stream(stream)

    async def _doubtful(self) -> Sequence[str]:
        """Return the streams to ask about: all, or of very many those in which this worker has something pending."""
        member, names = self._member, self._stream_set.readable()
        if len(names) <= MANY:
            return names
        found: list[str] = []
        for start in range(0, len(names), MANY):
            page = names[start : start + MANY]
            summaries = await member.streams.pending_summaries([(name, member.group) for name in page])
            found += [n for n, summary in zip(page, summaries, strict=True) if member.consumer in summary.consumers]
        return found

    async def begin_eras(self) -> None:
        """Compare what is held with a server that may have lost its tail, when somebody waits for it; until cancelled.

        The reader does so before it reads on; but it may be waiting for room, which only acks make.
        """
        while True:
            await self._era.asked()
            pause = FIRST_PAUSE
            while self._era.is_over:
                try:
                    await self._begin_era()
                except HyperbusError:
                    await self._member.clock.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)

    async def _begin_era(self) -> None:
        """Disown what is not pending with this worker any more, though it is held here.

        What is pending was delivered before the server lost anything, as nothing has been read since: it is the same.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses.
        """
        async with self._beginning:
            while self._era.is_over:
                era, disowned = self._era.latest, dict[str, set[bytes]]()
                for stream, ids in self._inbox.held_ids().items():
                    pending = await self._pending_ids(stream)
                    disowned[stream] = ids - pending - self._parked.held_of(stream)
                if era != self._era.latest:
                    continue
                self._era.begin(era, disowned)
                for stream, lost in disowned.items():
                    self._inbox.release(stream, lost)
                count = sum(map(len, disowned.values()))
                if count:
                    self._member.announcer.announce(Disowned(self._member.group, count))

    async def _pending_ids(self, stream: str) -> set[bytes]:
        member, found, after = self._member, set[bytes](), FIRST_ID
        while True:
            page = await member.streams.pending(
                stream, member.group, consumer=member.consumer, after=after, count=PENDING_PAGE
            )
            found |= {entry.id for entry in page}
            if len(page) < PENDING_PAGE:
                return found
            after = page[-1].id

    async def _recover_stream(self, stream: str) -> None:
        member, after = self._member, FIRST_ID
        await self._restore_counts(stream)
        while True:
            page = min(await self._inbox.wait_for_room(), RECOVER_PAGE, self._inbox.sizes.most)
            if self._inbox.closed:
                return
            with self._inbox.remembering() as gone:
                pending = await member.streams.pending(
                    stream, member.group, consumer=member.consumer, after=after, count=page
                )
                if any(self._is_unknown(stream, entry.id, gone) for entry in pending):
                    counts = {entry.id: entry.delivery_count for entry in pending}
                    await self._recover_page(stream, after, counts, gone)
            if len(pending) < page:
                return
            after = pending[-1].id

    async def _restore_counts(self, stream: str) -> None:
        """Undo what a read did that broke off: it has raised counts, and was no delivery."""
        if stream in self._raised:
            member, counts = self._member, self._raised[stream]
            await member.streams.set_delivery_counts(stream, member.group, member.consumer, list(counts.items()))
            del self._raised[stream]

    def _is_unknown(self, stream: str, entry_id: bytes, gone: set[tuple[str, bytes]]) -> bool:
        return not self._inbox.holds(stream, entry_id) and (stream, entry_id) not in gone

    async def _recover_page(
        self, stream: str, after: bytes, counts: dict[bytes, int], gone: set[tuple[str, bytes]]
    ) -> None:
        member = self._member
        try:
            entries = await self._connection.read_pending(
                member.group, member.consumer, stream, after=after, count=len(counts)
            )
        except BusUnavailable:
            self._inbox.sizes.failed(len(counts))
            self._raised[stream] = counts
            raise
        self._inbox.sizes.passed(len(entries))
        # reading them has raised the counts of all, and was no delivery
        await member.streams.set_delivery_counts(stream, member.group, member.consumer, list(counts.items()))
        unknown = [entry for entry in entries if self._is_unknown(stream, entry.id, gone)]
        deleted = [entry.id for entry in unknown if not entry.fields]
        if deleted:
            await member.streams.ack([(stream, member.group, deleted)])
        found = [entry for entry in unknown if entry.fields]
        received = receive(stream, self._stream_set.type_in(stream), found, member.clock.now(), member.era.current)
        counted = [item.id for item in received if counts.get(item.id, 1) > 1]
        deaths = await self._retries.deaths.recall(stream, counted)
        for item in received:
            item.recovered(counts.get(item.id, 1), deaths=deaths.get(item.id, 0))
        self._retries.deaths.keep(received)
        self._inbox.put(stream, await self._retries.resume(stream, received, claimed=False))
        if found:
            member.announcer.announce(Recovered(member.group, stream, len(found), not self._amiss))
