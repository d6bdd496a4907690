"""Giving entries that nobody began to handle to another worker of the group, at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec

from hyperbus.errors import HyperbusError
from hyperbus.runtime.in_flight.inbox import Received
from hyperbus.transport import Streams

#: The kind of notice that tells a worker that it was given entries.
HANDED_OVER = b"handed over"


class HandedOver(msgspec.Struct, frozen=True):
    """The body of such a notice."""

    to: str
    streams: tuple[str, ...]


class HandOver:
    """Hands entries of one worker over to those of its group that live.

    Tries are not raised: nobody tried. What cannot be handed over stays pending, and is claimed once this worker's
    heartbeat is gone.
    """

    def __init__(
        self,
        streams: Streams,
        group: str,
        consumer: str,
        *,
        alive: Callable[[Sequence[str]], Awaitable[Sequence[bool]]],
        give: Callable[[bytes, bytes], Awaitable[None]],
    ) -> None:
        self._streams = streams
        self._group = group
        self._consumer = consumer
        self._alive = alive
        self._give = give

    async def run(self, received: Sequence[Received]) -> list[Received]:
        """Hand entries over; return those that were not."""
        by_stream: dict[str, list[Received]] = {}
        for item in received:
            by_stream.setdefault(item.stream, []).append(item)
        given: dict[str, list[str]] = {}
        left: list[Received] = []
        for stream, items in by_stream.items():
            try:
                peers = await self._peers(stream)
                share = -(-len(items) // len(peers)) if peers else 0
                for peer, part in zip(peers, _parts(items, share), strict=False):
                    given.setdefault(peer, []).append(stream)
                    counts = [(item.id, item.tries) for item in part]
                    await self._streams.hand_over(stream, self._group, self._consumer, peer, counts)
            except HyperbusError:
                left += items  # what was handed over all the same is no longer ours, and not counted back
            else:
                left += () if peers else items
        for peer, streams in given.items():
            with suppress(HyperbusError):  # it finds them itself, only later
                await self._give(HANDED_OVER, msgspec.json.encode(HandedOver(peer, tuple(streams))))
        return left

    async def _peers(self, stream: str) -> list[str]:
        (names,) = await self._streams.consumers([(stream, self._group)])
        others = [name for name in names if name != self._consumer]
        alive = await self._alive(others) if others else []
        return [name for name, is_alive in zip(others, alive, strict=True) if is_alive]


def _parts(items: Sequence[Received], size: int) -> list[Sequence[Received]]:
    return [items[start : start + size] for start in range(0, len(items), size)] if size else []
