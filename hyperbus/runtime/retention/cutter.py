"""Cutting the oldest entries of a stream, page by page, and counting what groups had not acked of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hyperbus.clock import Clock
from hyperbus.transport import FIRST_ID, Streams, id_before, id_key

#: Entries that go in one round trip; more would hold the server too long.
PAGE = 5_000
#: Fewer entries than this cannot be cut by number: servers cut whole blocks. Their id is looked for instead.
LEAST = 1_000
#: Entries of one millisecond that are told apart in doing so.
_IN_A_MILLISECOND = 2**20
#: Between the ids of two real entries there are not more places than this: a hundred years.
_LONGEST = 100 * 366 * 86_400_000 * _IN_A_MILLISECOND
#: Share of the wanted number that is near enough.
_EXACT = 0.98
#: Pending entries that are looked at in one round trip.
_PENDING_PAGE = 1_000


class Watched(NamedTuple):
    """A group whose unread entries are counted when they go. `is_there`: it may have pending entries."""

    group: str
    last_delivered_id: bytes
    is_there: bool


class Cutter:
    """Cuts one stream at a time."""

    def __init__(self, streams: Streams, clock: Clock) -> None:
        self._streams = streams
        self._clock = clock

    async def cut(
        self, stream: str, *, up_to: bytes, count: int | None, until: float, watched: Sequence[Watched]
    ) -> tuple[int, dict[str, int]]:
        """Cut entries up to an id, oldest first, about `count` of them or all; stop at a time of the clock.

        Returns how many went, and how many of them each watched group had not acked; about, while they work.
        """
        total = 0
        missed: dict[str, int] = {}
        while count is None or count - total >= LEAST:
            limit = PAGE if count is None else min(PAGE, count - total)
            cut = await self._page(stream, up_to, limit, watched, missed)
            total += cut
            if cut * 2 <= limit or self._clock.monotonic() >= until:
                break  # so few are cut only when there are no more
        return total, missed

    async def id_of(self, stream: str, oldest: bytes, up_to: bytes, count: int) -> bytes | None:
        """Return an id up to which there are about `count` entries, and no more; None where none was found.

        Servers count entries between ids, but find no entry by its number: the id is looked for by halves.
        """
        low, high = _place(oldest), _place(up_to)
        if high - low > _LONGEST:  # `up_to` is no entry's: begin at the last one there is
            (last,) = await self._streams.last_ids([stream])
            high = _place(last)
        best: bytes | None = None
        while low <= high:
            middle = (low + high) // 2
            candidate = min(b"%d-%d" % divmod(middle, _IN_A_MILLISECOND), up_to, key=id_key)
            found = await self._streams.count_between(stream, FIRST_ID, candidate, count + 1)
            if found > count:
                high = middle - 1
                continue
            if found:
                best = candidate
            low = middle + 1
            if found >= count * _EXACT:
                break
        return best

    async def _page(
        self, stream: str, up_to: bytes, limit: int, watched: Sequence[Watched], missed: dict[str, int]
    ) -> int:
        if not watched:
            return await self._streams.trim(stream, up_to=up_to, limit=limit)
        (before,) = await self._streams.oldest([stream])
        if before is None:
            return 0
        given = [
            await self._streams.count_between(stream, FIRST_ID, group.last_delivered_id, 2 * limit)
            if id_key(group.last_delivered_id) >= id_key(before)
            else 0
            for group in watched
        ]
        cut = await self._streams.trim(stream, up_to=up_to, limit=limit)
        (after,) = await self._streams.oldest([stream])
        for group, delivered in zip(watched, given, strict=True):
            unread = max(0, cut - delivered)
            if group.is_there and delivered:
                unread += await self._pending_between(stream, group.group, before, after)
            if unread:
                missed[group.group] = missed.get(group.group, 0) + unread
        return cut

    async def _pending_between(self, stream: str, group: str, first: bytes, end: bytes | None) -> int:
        """Count pending entries from `first` on, and before `end`."""
        found, after = 0, id_before(first)
        while True:
            page = await self._streams.pending(stream, group, after=after, count=_PENDING_PAGE)
            inside = [entry for entry in page if end is None or id_key(entry.id) < id_key(end)]
            found += len(inside)
            if len(inside) < _PENDING_PAGE:
                return found
            after = page[-1].id


def _place(entry_id: bytes) -> int:
    """Return an id as one number."""
    milliseconds, sequence = id_key(entry_id)
    return milliseconds * _IN_A_MILLISECOND + min(sequence, _IN_A_MILLISECOND - 1)
