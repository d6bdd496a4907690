"""How many workers died while they held an entry. A claim raises the server's count of deliveries, and is no try."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from hyperbus.clock import Seconds
from hyperbus.errors import HyperbusError
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.inbox import Inbox
from hyperbus.runtime.in_flight.received import Received, by_stream
from hyperbus.runtime.poison.start_counts import StartCounts
from hyperbus.transport import Records, record_names

#: For how long it is known that a worker left in good order. What it left is claimed at once, where there is anybody.
REMEMBER_LEAVING: Seconds = 86_400.0


class Deaths:
    """Counts, on the server, how often entries of a group were claimed from workers that died.

    A worker that leaves in good order says so: what it had begun is a try, what it had not begun is counted back, and
    who claims it counts no death.
    """

    def __init__(self, member: Member, inbox: Inbox, records: Records | None = None) -> None:
        self._member = member
        self._inbox = inbox
        self._records = records
        #: Entries here that have counts; bounded by the inbox.
        self._kept: list[Received] = []
        self._unbegun = StartCounts.of_unbegun(member)

    async def count(self, stream: str, owner: str, ids: Sequence[bytes]) -> dict[bytes, int] | None:
        """Count a death for each entry that was claimed from `owner`; return all that were counted, by id.

        None: they could not be counted.
        """
        try:
            if await self._left_in_good_order(owner):
                return await self.recall(stream, ids)
            return dict(zip(ids, await self._member.streams.count_deaths(stream, self._member.group, ids), strict=True))
        except HyperbusError:
            return None  # then the claim counts as a try

    async def recall(self, stream: str, ids: Sequence[bytes]) -> dict[bytes, int]:
        """Return the deaths of entries, by id.

        Raises:
            HyperbusError: the server is away or refuses.
        """
        found = await self._member.streams.deaths(stream, self._member.group, ids) if ids else []
        return dict(zip(ids, found, strict=True))

    def keep(self, received: Iterable[Received]) -> None:
        """Forget the deaths of these entries once they have ended."""
        self._kept += [item for item in received if item.deaths]

    async def forget_ended(self) -> None:
        """Have the server forget entries that have ended; those that other workers have now keep their counts."""
        if not self._kept:
            return
        ended = [item for item in self._kept if not (item.given or self._inbox.holds(item.stream, item.id))]
        for stream, items in by_stream(ended).items():
            with suppress(HyperbusError):  # they go by themselves, a week after the last one was counted
                await self._member.streams.forget_deaths(stream, self._member.group, [item.id for item in items])
                if unbegun := [item.id for item in items if item.unbegun]:
                    await self._unbegun.forget(stream, unbegun)
        self._kept = [item for item in self._kept if self._inbox.holds(item.stream, item.id) and not item.given]

    async def leave(self) -> None:
        """Say that this worker leaves in good order, if it leaves anything."""
        await self.forget_ended()
        if self._inbox.held and self._records is not None:
            with suppress(HyperbusError):  # failing makes it look as if it had died
                await self._records.put(record_names.left(self._member.consumer), b"1", ttl=REMEMBER_LEAVING)

    async def _left_in_good_order(self, owner: str) -> bool:
        if self._records is None:
            return False
        [left] = await self._records.get([record_names.left(owner)])
        return left is not None
