"""The parts of a worker of a group. Here, and only here, they are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from hyperbus.errors import HyperbusError
from hyperbus.runtime.coordination.era import Era
from hyperbus.runtime.coordination.lease import Lease
from hyperbus.runtime.coordination.server_clock import ServerClock
from hyperbus.runtime.group.checkpoints import Checkpoints
from hyperbus.runtime.group.group_creator import GroupCreator
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.group.ownership import LEASE, Ownership
from hyperbus.runtime.group.stream_set import StreamSet
from hyperbus.runtime.group.unread_losses import UnreadLosses
from hyperbus.runtime.handling.deliveries import Deliveries
from hyperbus.runtime.handling.executor import Executor
from hyperbus.runtime.handling.handler import Handler
from hyperbus.runtime.handling.running_handlers import RunningHandlers
from hyperbus.runtime.handling.settlement import Settlement
from hyperbus.runtime.in_flight.decoder import EventDecoder
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.key_order import KeyOrder
from hyperbus.runtime.in_flight.pace import Pace
from hyperbus.runtime.in_flight.pending_doubt import PendingDoubt
from hyperbus.runtime.in_flight.received import Received, owned
from hyperbus.runtime.outcomes.acker import Acker
from hyperbus.runtime.outcomes.dead_letter_writer import DeadLetterWriter
from hyperbus.runtime.outcomes.guarantees import AtLeastOnce, AtMostOnce, Guarantee
from hyperbus.runtime.outcomes.parked_entries import LEASE_TTLS, ParkedEntries
from hyperbus.runtime.outcomes.retry_scheduler import RetryScheduler
from hyperbus.runtime.parts import Parts
from hyperbus.runtime.poison.deaths import Deaths
from hyperbus.runtime.poison.quarantine import Quarantine
from hyperbus.runtime.poison.start_counts import StartCounts
from hyperbus.runtime.reading.group_reader import GroupReader
from hyperbus.runtime.reading.pending_recovery import PendingRecovery
from hyperbus.runtime.recovery.claims import Claims
from hyperbus.runtime.recovery.handover import HANDED_OVER, Handover
from hyperbus.runtime.recovery.liveness import Liveness
from hyperbus.runtime.recovery.reclaimer import Reclaimer
from hyperbus.runtime.recovery.sharing import Sharing
from hyperbus.runtime.services import Services, tell_of_streams
from hyperbus.transport import Reader, record_names
from hyperbus.transport.births import read_births


class GroupWorker:
    """Reads for a group, handles, acks; recovers what others left, and hands over what it leaves."""

    def __init__(
        self, handler: Handler, running: RunningHandlers, consumer: str, connection: Reader, services: Services
    ) -> None:
        declaration, transport, clock = handler.declaration, services.transport, services.clock
        self._declaration, self._services = declaration, services
        self._member = member = self._as_member(consumer)
        ordered = declaration.order_by is not None
        # what the parts share
        decoder = EventDecoder(services.codecs, {**services.data_types, **declaration.data_types})
        order = KeyOrder(decoder, declaration.key_of) if ordered else None
        doubt = PendingDoubt(member.era)
        pace = Pace(running, clock, concurrency=declaration.concurrency, batch=declaration.batch or 1)
        self._inbox = inbox = Inbox(self._prefetch, services.prefetch_bytes, None if ordered else pace)
        self._stream_set = stream_set = StreamSet(declaration.types, services.announcer, clock)
        self._ownership = ownership = self._owner()
        liveness = Liveness(transport.records, services.heartbeat, clock, services.heartbeat_ttl)
        checkpoints = Checkpoints(transport.streams, member.group)
        self._creator = creator = GroupCreator(member, transport.records, checkpoints, declaration.start_from)
        # how deliveries end
        acker, dead_letters = Acker(member, inbox, prefetch=self._prefetch), DeadLetterWriter(member, inbox)
        inbox.when_starving(acker.hurry)
        times, deaths = ServerClock(transport.records, clock), Deaths(member, inbox, transport.records)
        self._retries = retries = RetryScheduler(member, inbox, doubt, order, times, deaths)
        lease = services.heartbeat_ttl * LEASE_TTLS
        self._parked = parked = ParkedEntries(member, inbox, stream_set, transport.records, lease=lease)
        # how they come in
        losses = UnreadLosses(member, stream_set, transport.records)
        recovery = PendingRecovery(member, connection, stream_set, inbox, doubt, retries, losses, parked)
        self._reader = GroupReader(member, connection, stream_set, creator, ownership, doubt, recovery, inbox)
        claims = Claims(member, inbox, stream_set, retries, doubt)
        reclaimer = Reclaimer(member, inbox, stream_set, doubt, ownership, liveness, claims, checkpoints)
        self._handover = Handover(member, liveness, services.notifier, doubt, ordered=ordered)
        self._sharing = Sharing(member, inbox, pace, doubt, self._handover, parked, services.notifier)
        # how they are handled
        self._executor = Executor(
            handler, running, inbox, decoder, Deliveries(member, decoder, services.publish),
            Settlement(declaration, self._guarantee(acker, dead_letters), services.announcer, clock, pace),
            Quarantine(member, StartCounts.of_group(member), services.isolation, inbox), order,
        )  # fmt: skip
        self.parts = Parts(
            member.group, self._reader, self._executor,
            background={
                "reclaimer": reclaimer.run, "retries": retries.run, "parked entries": parked.take,
                "doubts": recovery.interrupt_reads, "eras": recovery.begin_eras, "losses": recovery.losses.run,
                "sharing": self._sharing.run,
            },
            finishers=(acker, dead_letters, parked), announcer=services.announcer,
        )  # fmt: skip
        #: Entries that nobody began to handle and that are not handed over yet.
        self._unbegun: list[Received] = []

    def _as_member(self, consumer: str) -> Member:
        group, services = self._declaration.group, self._services
        era = Era(services.transport)
        return Member(group, consumer, services.transport.streams, services.clock, services.announcer, era)

    def _owner(self) -> Ownership:
        member, services = self._member, self._services
        lease = Lease(services.transport.records, record_names.sweep_lease(member.group), member.consumer, LEASE)
        return Ownership(lease, services.clock, ordered=self._declaration.order_by is not None)

    @property
    def _prefetch(self) -> int:
        return self._declaration.prefetch or self._services.prefetch

    def _guarantee(self, acker: Acker, dead_letters: DeadLetterWriter) -> Guarantee:
        """Return what becomes of each delivery."""
        if self._declaration.ack == "received":
            return AtMostOnce(self._member, self._inbox, dead_letters, self._parked)
        return AtLeastOnce(self._member, acker, self._retries, dead_letters, self._parked)

    async def enter(self) -> None:
        """Settle where the group begins, and be known to live.

        Raises:
            BusUnavailable: the server cannot be reached; there is nothing to leave then.
        """
        services, member = self._services, self._member
        await self._creator.prepare()
        await services.heartbeat.add(member.consumer, member.about())
        services.heartbeat.subscribe(self._parked.keep)
        services.notifier.subscribe(HANDED_OVER, self._handover.hear)
        services.notifier.subscribe(record_names.STREAM_ENDED, self._let_go)
        self._sharing.subscribe()

    async def join(self) -> None:
        """Take a place in the group: create it on each stream, and be known to it.

        Raises:
            BusUnavailable: the server cannot be reached.
        """
        services, types = self._services, self._declaration.types
        known = await services.finder.subscribe(self._take_in) if types.globs else {}
        await self._take_in({**services.named_streams(types), **known})
        await self._reader.join()

    async def _take_in(self, streams: Mapping[str, str]) -> None:
        """Read the streams among these that the consumer takes and that are new to it; the others soon."""
        new = self._stream_set.missing(streams)
        if len(new) < len(streams) and self._stream_set.expect(streams):
            await self._reader.look_soon()
        if new:
            await self._creator.create(tuple(new))
            await self._reader.add_streams(new)
            await tell_of_streams(self._services, self._member.group, self._declaration.types, new)

    def _let_go(self, notice: bytes) -> None:
        """Read streams no more that have come to an end; those that are born again are found again."""
        self._stream_set.remove(read_births(notice))

    async def hand_over(self) -> None:
        """Hand out nothing more; give what nobody began to handle to others."""
        self._unbegun += [
            *self._inbox.close(),
            *self._sharing.unbegun(),
            *self._executor.unbegun(),
            *self._retries.waiting(),
        ]
        await self._give(self._unbegun)

    async def _give(self, unbegun: Sequence[Received]) -> None:
        self._unbegun = self._parked.give_back(owned(unbegun, self._member.era))
        if self._unbegun:
            await self._handover.give(self._unbegun)
        self._unbegun = []

    async def leave(self) -> None:
        """Give up the place in the group; what is still pending is free for others at once."""
        services, member = self._services, self._member
        services.notifier.unsubscribe(HANDED_OVER, self._handover.hear)
        services.notifier.unsubscribe(record_names.STREAM_ENDED, self._let_go)
        self._sharing.unsubscribe()
        services.finder.unsubscribe(self._take_in)
        services.heartbeat.unsubscribe(self._parked.keep)
        await self._give([*self._unbegun, *self._inbox.close(), *self._executor.unbegun()])
        await self._parked.leave()
        with suppress(HyperbusError):  # failing leaves it to its time
            await self._ownership.release()
        await self._retries.deaths.leave()
        await services.heartbeat.remove(member.consumer)
        with suppress(HyperbusError):  # failing leaves it to another worker's sweep
            await member.streams.remove_consumer(member.group, member.consumer, self._stream_set.names)
