"""Giving entries that nobody began to handle to other workers of the group, at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import msgspec

from hyperbus.errors import HyperbusError, ServerError
from hyperbus.runtime.coordination.notifier import Notifier
from hyperbus.runtime.group.member import Member
from hyperbus.runtime.in_flight.pending_doubt import PendingDoubt
from hyperbus.runtime.in_flight.received import Received, by_stream, owned
from hyperbus.runtime.recovery.liveness import Liveness
from hyperbus.transport import readable

#: The kind of notice that tells a worker that it was given entries.
HANDED_OVER = b"handed over"


class HandedOver(msgspec.Struct, frozen=True):
    """The body of such a notice."""

    to: str
    streams: tuple[str, ...]


class Handover:
    """Hands entries of one worker over to those of its group that live, and hears what was handed over to this one.

    Tries are not raised: nobody tried. What cannot be handed over stays pending with its count, and is claimed once
    this worker's heartbeat is gone. In an ordered group all of it does: whoever may read next claims it, in its order.
    """

    def __init__(
        self, member: Member, liveness: Liveness, notifier: Notifier, doubt: PendingDoubt, *, ordered: bool
    ) -> None:
        self._member = member
        self._liveness = liveness
        self._notifier = notifier
        self._doubt = doubt
        self._ordered = ordered

    async def give(self, received: Sequence[Received]) -> None:
        """Hand entries over; those that cannot be keep the count that they had before they came here."""
        left = received if self._ordered else await self.share_out(received)
        member = self._member
        with suppress(HyperbusError):  # failing costs these entries a try
            for stream, items in by_stream(left).items():
                counts = [(item.id, item.delivery_count - 1) for item in items]
                with suppress(ServerError):  # a stream that refuses harms no other
                    await member.streams.set_delivery_counts(stream, member.group, member.consumer, counts)

    async def give_to(self, peer: str, received: Sequence[Received]) -> None:
        """Hand entries over to one worker, and tell it.

        Raises:
            HyperbusError: the server is away, or refuses; some were handed over, perhaps.
        """
        streams = by_stream(received)
        for stream, items in streams.items():
            await self._hand_over(stream, peer, items)
        await self._tell(peer, streams)

    def hear(self, notice: bytes) -> None:
        """Take a notice of entries that were handed over: if it was to this worker, it looks for them at once."""
        with suppress(msgspec.MsgspecError, ValueError, RecursionError):  # anybody can write a notice
            if msgspec.json.decode(notice, type=HandedOver).to == self._member.consumer:
                self._doubt.expect()

    async def share_out(self, received: Sequence[Received]) -> list[Received]:
        """Share entries out among the living; return those that nobody took."""
        given: dict[str, list[str]] = {}
        left: list[Received] = []
        for stream, items in by_stream(received).items():
            try:
                if not await self._share_out_stream(stream, items, given):
                    left += items
            except HyperbusError:
                left += items  # what was handed over all the same is no longer ours, and not counted back
        for peer, streams in given.items():
            await self._tell(peer, streams)
        return left

    async def _tell(self, peer: str, streams: Iterable[str]) -> None:
        with suppress(HyperbusError):  # it finds them itself, only later
            await self._notifier.notify(HANDED_OVER, msgspec.json.encode(HandedOver(peer, tuple(streams))))

    async def _hand_over(self, stream: str, peer: str, items: Sequence[Received]) -> None:
        member, mine = self._member, owned(items, self._member.era)
        counts = [(item.id, item.delivery_count) for item in mine]
        for item in mine:
            item.handed_over()  # before it is asked: the answer may be lost
        await member.streams.hand_over(stream, member.group, member.consumer, peer, counts)

    async def _share_out_stream(self, stream: str, items: Sequence[Received], given: dict[str, list[str]]) -> bool:
        """Share out entries of one stream, and note in `given` who was; False: there is nobody."""
        peers = await self._peers(stream)
        if not peers:
            return False
        share = -(-len(items) // len(peers))
        for peer, start in zip(peers, range(0, len(items), share), strict=False):
            given.setdefault(peer, []).append(stream)
            await self._hand_over(stream, peer, items[start : start + share])
        return True

    async def _peers(self, stream: str) -> list[str]:
        (names,) = await self._member.streams.consumers([(stream, self._member.group)])
        others = [name for name in names if name != self._member.consumer and readable(name) == name]
        alive = await self._liveness.alive(others) if others else []
        return [name for name, is_alive in zip(others, alive, strict=True) if is_alive]
