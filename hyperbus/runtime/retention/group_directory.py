"""Which groups hold a stream: those on the server, those it lost, and for how long nobody has served each.

It never cuts anything, and never removes a group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import ServerError
from hyperbus.runtime.group.unread_losses import note_own_cut
from hyperbus.signals import Announcer, GroupAbandoned
from hyperbus.transport import GroupInfo, Records, StreamInfo, Transport, readable, record_names

#: How often it is asked whether a group is served; more often where groups are abandoned after less than four of these.
ASK: Seconds = 15.0
#: A group is given up only after it was seen unserved for this long without a break, or for as long as `abandon_after`.
#: Until then a worker that starts, or a server that is back, has time to say otherwise.
GRACE: Seconds = 600.0
#: Groups that the directory may hold.
MOST_GROUPS = 100_000
_PAGE = 200

#: What the record of a group says: served by workers of ours, or only seen.
SERVED, SEEN = b"served", b"seen"
#: A group that is new is asked about this often at first: its worker may not have read yet.
_ASK_SOON: Seconds = 1.0
_SETTLING = 10

Pair = tuple[str, str]
Item = TypeVar("Item")


@dataclass(slots=True)
class _Known:
    """What is known of a group on a stream. `served`: by a worker of ours, which will make it again if it is lost."""

    entered: bool = False
    served: bool = False
    asked: int = 0
    ask_at: float = 0.0
    progress: tuple[bytes, int] | None = None
    unserved_since: float | None = None
    abandoned: bool = False


class GroupDirectory:
    """Remembers groups, on the server, with how long ago each was served; one process at a time keeps it.

    A group is served while a consumer of it has a heartbeat, or while it makes progress, as groups of other programs
    do. Each has a record `served:{stream}:group` that lives for `abandon_after`, and is renewed while it is served.
    """

    def __init__(
        self,
        transport: Transport,
        announcer: Announcer,
        clock: Clock,
        *,
        abandon_after: Seconds,
        grace: Seconds = GRACE,
    ) -> None:
        self._streams = transport.streams
        self._records = transport.records
        self._announcer = announcer
        self._clock = clock
        self._abandon_after = abandon_after
        self._ask = min(ASK, abandon_after / 4)
        self._grace = min(grace, abandon_after)
        self._known: dict[str, dict[str, _Known]] | None = None
        self._there: dict[str, dict[str, GroupInfo]] = {}

    def forget(self) -> None:
        """Start anew: another process kept the directory, or the server was away."""
        self._known = None
        self._there.clear()

    async def update(self, infos: Mapping[str, StreamInfo | None]) -> None:
        """Take in what streams look like now, and find out which groups are served.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses.
        """
        known = self._known = await self._load() if self._known is None else self._known
        for stream, info in infos.items():
            if info is None:
                self._there.pop(stream, None)
                continue
            self._there[stream] = {group.group: group for group in info.groups}
            for group in self._there[stream]:
                known.setdefault(stream, {}).setdefault(group, _Known())
        now = self._clock.monotonic()
        due = [(s, group) for s, groups in known.items() for group, state in groups.items() if now >= state.ask_at]
        for page in _pages(due, _PAGE):
            await self._look(page, now)

    def drop(self, stream: str) -> None:
        """Forget a stream that has come to an end, and its groups."""
        self._there.pop(stream, None)
        if self._known is not None:
            self._known.pop(stream, None)

    def abandoned(self, stream: str, group: str) -> bool:
        """Tell whether a group holds the stream no longer."""
        state = (self._known or {}).get(stream, {}).get(group)
        return state is not None and state.abandoned

    def lost(self, stream: str, there: Iterable[str]) -> list[str]:
        """Return the groups that workers serve on a stream and that are not among those that are there."""
        groups = (self._known or {}).get(stream, {})
        present = set(there)
        return [g for g, state in groups.items() if state.served and not state.abandoned and g not in present]

    async def note_cut(self, stream: str, group: str) -> None:
        """Take down that entries were cut that a group had not read, so that nobody else tells of them as well."""
        with suppress(ServerError):  # a full server: they are told of twice
            await note_own_cut(self._streams, self._records, stream, group)

    async def _load(self) -> dict[str, dict[str, _Known]]:
        members = await self._records.members(record_names.GROUP_DIRECTORY, count=MOST_GROUPS)
        pairs = [pair for member, _ in members if (pair := record_names.read_member(member)) is not None]
        known: dict[str, dict[str, _Known]] = {}
        for page in _pages(pairs, _PAGE):
            records = await self._records.get([record_names.served(*pair) for pair in page])
            for (stream, group), record in zip(page, records, strict=True):
                known.setdefault(stream, {})[group] = _Known(entered=True, served=record == SERVED)
        return known

    async def _look(self, page: Sequence[Pair], now: float) -> None:
        """Ask for some groups whether they are served, and write down what was found."""
        ours = await self._served(page)
        records = await self._records.get([record_names.served(*pair) for pair in page])
        noted: list[tuple[Pair, bytes | None]] = []
        gone: list[Pair] = []
        for pair, by_ours, record in zip(page, ours, records, strict=True):
            state, there = self._state(pair), self._there.get(pair[0], {}).get(pair[1])
            moved = self._take_in(state, there, by_ours=by_ours or record == SERVED, now=now)
            if by_ours or moved or not state.entered:
                noted.append((pair, record))
            if by_ours or moved or not state.entered or record is not None:
                state.unserved_since, state.abandoned = None, False
            else:
                self._count_down(pair, state, now)
                state.ask_at = now  # whoever serves it again is to be noticed at once
            if there is None and (state.abandoned or not state.served):
                gone.append(pair)  # nobody will make it again
        await self._note(noted)
        await self._remove(gone)

    def _take_in(self, state: _Known, there: GroupInfo | None, *, by_ours: bool, now: float) -> bool:
        """Remember what a group looks like now; tell whether it made progress."""
        state.served = state.served or by_ours
        state.asked += 1
        settling = not state.served and state.asked < _SETTLING
        state.ask_at = now + min(self._ask, _ASK_SOON if settling else self._ask)
        progress = None if there is None else (there.last_delivered_id, there.pending)
        moved = progress is not None and state.progress is not None and state.progress != progress
        state.progress = progress
        return moved

    async def _served(self, page: Sequence[Pair]) -> list[bool]:
        """Tell which groups have a consumer whose worker lives."""
        consumers = await self._streams.consumers(page)
        names = sorted({name for found in consumers for name in found})
        alive: set[str] = set()
        for part in _pages(names, _PAGE):
            beats = await self._records.get([record_names.heartbeat(name) for name in part])
            alive |= {name for name, beat in zip(part, beats, strict=True) if beat is not None}
        return [not alive.isdisjoint(found) for found in consumers]

    async def _note(self, noted: Sequence[tuple[Pair, bytes | None]]) -> None:
        """Let the records of groups live on. A full server renews them, and only refuses to make new ones."""
        wanted = [(pair, SERVED if self._state(pair).served else SEEN, record) for pair, record in noted]
        right = [pair for pair, value, record in wanted if record == value and self._state(pair).entered]
        renewed = await self._records.renew([record_names.served(*pair) for pair in right], ttl=self._abandon_after)
        done = {pair for pair, is_there in zip(right, renewed, strict=True) if is_there}
        missing = [(pair, value) for pair, value, _ in wanted if pair not in done]
        if not missing:
            return
        with suppress(ServerError):  # full: they are known here, and are entered at the next look
            at = await self._records.server_time()
            await self._records.add_members(
                record_names.GROUP_DIRECTORY, {record_names.directory_member(*pair): at for pair, _ in missing}
            )
            for pair, value in missing:
                await self._records.put(record_names.served(*pair), value, ttl=self._abandon_after)
                self._state(pair).entered = True

    def _count_down(self, pair: Pair, state: _Known, now: float) -> None:
        stream, group = pair
        if state.unserved_since is None:
            state.unserved_since = now
            self._announcer.announce(GroupAbandoned(readable(group), stream, self._grace))
        elif not state.abandoned and now - state.unserved_since >= self._grace:
            state.abandoned = True
            self._announcer.announce(GroupAbandoned(readable(group), stream, 0.0))

    async def _remove(self, gone: Sequence[Pair]) -> None:
        if not gone:
            return
        await self._records.remove_members(
            record_names.GROUP_DIRECTORY, [record_names.directory_member(*pair) for pair in gone]
        )
        for stream, group in gone:
            await self._records.delete([record_names.served(stream, group)])
            del (self._known or {})[stream][group]

    def _state(self, pair: Pair) -> _Known:
        return (self._known or {})[pair[0]][pair[1]]


async def release(records: Records, stream: str, group: str) -> None:
    """Let a group that is ended for good hold its stream no longer; whoever keeps the directory sees it after `GRACE`.

    Raises:
        BusUnavailable, ServerError: the server is away, or refuses.
    """
    await records.remove_members(record_names.GROUP_DIRECTORY, [record_names.directory_member(stream, group)])
    await records.delete([record_names.served(stream, group)])


def _pages(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
