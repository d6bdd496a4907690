"""When a group is looked over, and for whom: what dead workers left pending goes to the living.

Never from a worker that lives, however long it takes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from hyperbus.clock import Seconds
from hyperbus.errors import BusUnavailable, HyperbusError
from hyperbus.runtime.coordination.refusals import Refusals, is_final
from hyperbus.runtime.group.checkpoints import Checkpoints
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.group.ownership import Ownership
from hyperbus.runtime.group.stream_set import StreamSet
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.pending_doubt import PendingDoubt
from hyperbus.runtime.recovery.claims import Claims
from hyperbus.runtime.recovery.liveness import Liveness
from hyperbus.transport import PendingSummary

#: How often a group is looked over, before jitter.
SWEEP: Seconds = 0.4
#: How often checkpoints are saved, or looked at.
CHECKPOINT: Seconds = 1.0
#: How often dead consumers are looked for that have nothing pending.
TIDY: Seconds = 10.0
#: How often a worker asks whether more is pending with it than it knows of.
RECOUNT: Seconds = 5.0


class Reclaimer:
    """Looks over one group.

    1. Holds the group's lease while it has room and may judge, so that one worker sweeps and not all of them.
    2. A consumer with pending entries and no heartbeat is dead (`Liveness`); what it left is claimed (`Claims`).
    3. Removes a dead consumer from the group once it has nothing pending.
    4. Asks, now and then, whether more is pending with this worker than it knows of: nobody else would take it.
    5. Says until when this worker may read, for a group that is ordered (`Ownership`).
    6. Saves how far the group has come, while it holds the lease; otherwise remembers what was saved.
    """

    def __init__(
        self,
        member: Member,
        inbox: Inbox,
        stream_set: StreamSet,
        doubt: PendingDoubt,
        ownership: Ownership,
        liveness: Liveness,
        claims: Claims,
        checkpoints: Checkpoints,
    ) -> None:
        self._member = member
        self._inbox = inbox
        self._stream_set = stream_set
        self._doubt = doubt
        self._ownership = ownership
        self._liveness = liveness
        self._claims = claims
        self._checkpoints = checkpoints
        self._monotonic = member.clock.monotonic
        self._checkpoints_at = float("-inf")
        self._tidied_at = self._recounted_at = self._monotonic()
        self._refusals = Refusals(member.announcer, f"sweeps of {member.group}")

    async def run(self) -> None:
        """Sweep until cancelled."""
        if not self._ownership.ordered:  # there nobody reads before the first sweep
            await self._rest()
        while True:
            try:
                await self.sweep()
            except BusUnavailable:
                self._liveness.server_was_away()
                self._ownership.lose()
                self._doubt.arise()  # a claim that was answered unheard left entries with this worker
            except HyperbusError as error:
                if not is_final(error):  # else a stream is gone, or is none: the reader deals with it
                    self._liveness.server_was_away()
                    self._refusals.failed(error)
            else:
                self._refusals.succeeded()
            await self._rest()

    async def _rest(self) -> None:
        await self._member.clock.sleep(SWEEP * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def sweep(self) -> int:
        """Look the group over once; return how many entries were claimed.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses a stream.
        """
        # in an ordered group nobody may read before all of them have been looked at
        names = self._stream_set.readable() if self._ownership.ordered else self._stream_set.some()
        if not names:
            return 0
        await self._recount(names)
        await self._claims.forget_ended()
        asked = self._monotonic()
        if not await self._liveness.hear(self._ownership.hold()):
            self._ownership.lose()
            if self._is_time_for_checkpoints():
                await self._checkpoints.load(names)
            return 0
        may_claim = self._ownership.ordered or self._liveness.may_judge()
        claimed = await self._claim(names, asked) if may_claim else 0
        if self._is_time_for_checkpoints():
            await self._checkpoints.save(names)
        if not may_claim:
            await self._ownership.release()  # another worker may judge already
        return claimed

    async def _claim(self, names: Sequence[str], asked: float) -> int:
        """Claim what the dead left, and remove them."""
        member = self._member
        summaries = await self._liveness.hear(
            member.streams.pending_summaries([(name, member.group) for name in names])
        )
        owners = {owner for summary in summaries for owner in summary.consumers if owner != member.consumer}
        dead = await self._liveness.dead(sorted(owners))
        claimed = 0
        for name, summary in zip(names, summaries, strict=True):
            claimed += await self._claim_from(name, summary, dead)
        for owner in dead | await self._dead_without_pending(names):
            await member.streams.remove_consumer(member.group, owner, names)
        if self._ownership.ordered:
            await self._decide_reading(names, summaries, asked, living=owners - dead)
        return claimed

    async def _decide_reading(
        self, names: Sequence[str], summaries: Sequence[PendingSummary], asked: float, *, living: AbstractSet[str]
    ) -> None:
        """Read from now on, where nobody else has anything pending; leave it to one that lives and has."""
        member = self._member
        owners = {owner for summary in summaries for owner in summary.consumers}
        if living and member.consumer not in owners:
            # it may go on with other keys meanwhile; here they would wait for the end of what it has
            self._ownership.lose()
            await self._ownership.release()
            return
        others_pending = bool(owners - {member.consumer})
        alone = not others_pending and self._ownership.is_new and await self._is_alone(names)
        self._ownership.confirm(asked, others_pending=others_pending, alone=alone)

    async def _is_alone(self, names: Sequence[str]) -> bool:
        """Tell whether the group knows of no other consumer: nobody can be in a read that began before."""
        member = self._member
        consumers = await member.streams.consumers([(name, member.group) for name in names])
        return not {name for found in consumers for name in found} - {member.consumer}

    async def _claim_from(self, stream: str, summary: PendingSummary, dead: set[str]) -> int:
        if self._ownership.ordered:
            others = summary.consumers.keys() - {self._member.consumer}
            return await self._claims.claim_in_order(stream, others, dead)
        claimed = 0
        for owner in dead & summary.consumers.keys():
            claimed += await self._claims.claim_all(stream, owner)
            if not self._inbox.room():
                await self._ownership.release()  # another worker may have room
        return claimed

    def _is_time_for_checkpoints(self) -> bool:
        now = self._monotonic()
        if now - self._checkpoints_at < CHECKPOINT:
            return False
        self._checkpoints_at = now
        return True

    async def _recount(self, names: Sequence[str]) -> None:
        """Find out, now and then, whether entries were handed over to this worker whose notice was lost."""
        now, member = self._monotonic(), self._member
        if now - self._recounted_at < RECOUNT:
            return
        self._recounted_at = now
        summaries = await member.streams.pending_summaries([(name, member.group) for name in names])
        for name, summary in zip(names, summaries, strict=True):
            if summary.consumers.get(member.consumer, 0) > self._inbox.held_of(name):
                self._doubt.arise()

    async def _dead_without_pending(self, names: Sequence[str]) -> set[str]:
        """Return, now and then, dead consumers that have nothing pending and so show up nowhere else."""
        now, member = self._monotonic(), self._member
        if now - self._tidied_at < TIDY:
            return set()
        self._tidied_at = now
        consumers = await member.streams.consumers([(name, member.group) for name in names])
        return await self._liveness.dead(sorted({name for found in consumers for name in found} - {member.consumer}))
