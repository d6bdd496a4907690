"""How one stream is cut: what its groups are done with first, what they have not read only under a hard cap.

It never decides when, nor which streams; `retention_loop.py` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from hyperbus.clock import Clock, Seconds
from hyperbus.event.retention import Keep
from hyperbus.runtime.retention.cutter import LEAST, Cutter, Watched
from hyperbus.runtime.retention.group_directory import GroupDirectory
from hyperbus.runtime.retention.stream_view import StreamView
from hyperbus.signals import Announcer, CutUnread, GhostStream, HardCapNear, Trimmed
from hyperbus.transport import FIRST_ID, Streams, id_at, id_before, id_key, readable

#: An id above every entry; servers can still count on from it.
LAST_ID = b"9999999999999999-0"
#: Entries beyond a bound that are counted one by one, where the server does not know how far a group is.
COUNTED = 20_000
#: What may be too much before it is cut, as a share of what may stay: cutting little and often costs more.
SLACK = 0.1
#: A stream without a group is left alone for this long: its group may be about to be made, or made again.
GHOST_GRACE: Seconds = 30.0
#: How often a stream that no group reads is told of.
GHOST_REPORT: Seconds = 3600.0
#: Share of a hard cap at which it warns, and below which it is ready to warn again.
WARN_AT, WARN_AGAIN_BELOW = 0.8, 0.7


@dataclass(slots=True)
class _Holding:
    """Who has a say in what is cut. A floor is the id up to which a group has acked everything."""

    live: dict[str, bytes]
    lost: list[str]
    abandoned: dict[str, bytes]

    @property
    def floor(self) -> bytes | None:
        """The id up to which every live group is done; None where there is no group that could be."""
        if self.lost:
            return FIRST_ID
        return min(self.live.values(), key=id_key, default=None)


@dataclass(slots=True)
class _Memory:
    """What is remembered of a stream from one look to the next."""

    ghost_since: float | None = None
    reported_at: float | None = None
    warned: bool = field(default=False)


class Trimmer:
    """Cuts streams as their policies say."""

    def __init__(
        self,
        streams: Streams,
        groups: GroupDirectory,
        announcer: Announcer,
        clock: Clock,
        *,
        ghost_bytes: int,
        ghost_grace: Seconds = GHOST_GRACE,
    ) -> None:
        self._streams = streams
        self._groups = groups
        self._announcer = announcer
        self._clock = clock
        self._ghost_bytes = ghost_bytes
        self._ghost_grace = ghost_grace
        self._cutter = Cutter(streams, clock)
        self._memories: dict[str, _Memory] = {}

    def forget(self, streams: Iterable[str] | None = None) -> None:
        """Forget streams that are gone, or all."""
        for stream in list(self._memories) if streams is None else streams:
            self._memories.pop(stream, None)

    async def trim(self, view: StreamView, *, now: float, until: float) -> int:
        """Cut what may go, until a time of the clock at most; return how many entries went.

        Args:
            view: what the stream looks like.
            now: the server's time.
            until: when to leave the rest for the next time.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses.
        """
        memory = self._memories.setdefault(view.info.stream, _Memory())
        if view.info.groups:
            memory.ghost_since = None
        if not self._is_wanted(view, now):
            return 0
        holding = await self._holding(view)
        if holding.floor is None:
            cut = await self._trim_ghost(view, holding, memory, now, until)
        else:
            cut = await self._trim_acked(view, holding, holding.floor, now, until)
        if view.keep.hard:
            cut += await self._trim_hard(view, holding, memory, cut, until)
        return cut

    def _is_wanted(self, view: StreamView, now: float) -> bool:
        """Tell whether something might have to go, without asking the server."""
        keep, length = view.keep, view.info.length
        if keep.age is not None and id_key(view.oldest) < id_key(id_at(now - keep.age)):
            return True
        share = WARN_AT if keep.hard else 1.0
        ghost = (view.weight or 0) > self._ghost_bytes
        return ghost or length > share * view.most(keep.entries, keep.bytes)

    async def _holding(self, view: StreamView) -> _Holding:
        stream = view.info.stream
        floors = await self._streams.floors(stream)
        given_up = {group: floor for group, floor in floors.items() if self._groups.abandoned(stream, group)}
        live = {group: floor for group, floor in floors.items() if group not in given_up}
        return _Holding(live, self._groups.lost(stream, floors), given_up)

    # -- what everyone is done with

    async def _trim_acked(self, view: StreamView, holding: _Holding, floor: bytes, now: float, until: float) -> int:
        unread = self._watched(view, holding.abandoned)
        cut = await self._cut(view, up_to=min(floor, _too_old(view.keep, now), key=id_key), until=until, unread=unread)
        if view.keep.hard:
            return cut  # its bounds are those of the whole stream
        allowed = view.most(view.keep.entries, view.keep.bytes)
        if view.info.length - cut <= allowed:
            return cut
        acked = await self._acked(view, holding, floor, allowed, cut)
        excess = int(acked - allowed)
        if excess > SLACK * allowed:
            cut += await self._cut(view, up_to=floor, count=excess, until=until, unread=unread)
        return cut

    async def _acked(self, view: StreamView, holding: _Holding, floor: bytes, allowed: float, cut: int) -> float:
        """Return about how many entries every live group has acked: all of them, but what the last group has to do."""
        unacked = _unacked(view, holding)
        if unacked is not None:
            return view.info.length - cut - unacked
        return await self._streams.count_between(view.info.stream, FIRST_ID, floor, int(allowed) + COUNTED)

    # -- what nobody reads

    async def _trim_ghost(self, view: StreamView, holding: _Holding, memory: _Memory, now: float, until: float) -> int:
        time = self._clock.monotonic()
        if memory.ghost_since is None:
            memory.ghost_since = time
        if not holding.abandoned and time - memory.ghost_since < self._ghost_grace:
            return 0
        unread = self._watched(view, holding.abandoned)
        cut = await self._cut(view, up_to=_too_old(view.keep, now), until=until, unread=unread)
        excess = int(view.info.length - cut - view.most(None, self._ghost_bytes))
        if excess > 0:
            cut += await self._cut(view, up_to=LAST_ID, count=excess, until=until, unread=unread)
        due = memory.reported_at is None or time - memory.reported_at >= GHOST_REPORT
        if cut and due and ":@" not in view.info.stream:  # an agent reads its inbox without a group
            memory.reported_at = time
            self._announcer.announce(GhostStream(view.info.stream, view.info.length, self._ghost_bytes))
        return cut

    # -- what somebody has yet to read

    async def _trim_hard(self, view: StreamView, holding: _Holding, memory: _Memory, cut: int, until: float) -> int:
        allowed = max(1.0, view.most(view.keep.entries, view.keep.bytes))
        unacked = _unacked(view, holding)
        unread = view.info.length - cut if unacked is None or holding.lost else unacked
        share = unread / allowed
        excess = int(view.info.length - cut - allowed)
        floor = holding.floor
        more = 0
        if excess > 0 and floor is not None:
            more = await self._cut(view, up_to=floor, count=excess, until=until)
            excess -= more
        if share >= WARN_AT and not memory.warned:
            memory.warned = True
            self._announcer.announce(HardCapNear(view.info.stream, share))
        if share < WARN_AGAIN_BELOW:
            memory.warned = False
        if excess > SLACK * allowed or (excess > 0 and share >= 1):
            checkpoints = await self._streams.checkpoints([(view.info.stream, group) for group in holding.lost])
            lost = {group: saved or FIRST_ID for group, saved in zip(holding.lost, checkpoints, strict=True)}
            watched = self._watched(view, {**holding.abandoned, **holding.live, **lost})
            more += await self._cut(view, up_to=LAST_ID, count=excess, until=until, unread=watched, reason="hard cap")
        return more

    # -- cutting

    def _watched(self, view: StreamView, floors: Mapping[str, bytes]) -> list[Watched]:
        """Return the groups whose unread entries are to be counted when they go."""
        infos = {group.group: group for group in view.info.groups}
        return [
            Watched(group, infos[group].last_delivered_id if group in infos else floor, group in infos)
            for group, floor in floors.items()
        ]

    async def _cut(
        self,
        view: StreamView,
        *,
        up_to: bytes,
        until: float,
        count: int | None = None,
        unread: list[Watched] | None = None,
        reason: Literal["hard cap", "abandoned"] = "abandoned",
    ) -> int:
        """Cut the oldest entries, `count` of them about or all, up to an id; tell of it, and of what was unread."""
        stream = view.info.stream
        if id_key(up_to) < id_key(view.oldest):
            return 0
        if count is not None and count < LEAST:
            found = await self._cutter.id_of(stream, view.oldest, up_to, count)
            if found is None:
                return 0
            up_to, count = found, None
        cut, missed = await self._cutter.cut(stream, up_to=up_to, count=count, until=until, watched=unread or [])
        if cut and reason != "hard cap":
            self._announcer.announce(Trimmed(stream, cut))
        for group, number in missed.items():
            self._announcer.announce(CutUnread(readable(group), stream, number, reason))
            await self._groups.note_cut(stream, group)
        return cut


def _too_old(keep: Keep, now: float) -> bytes:
    """Return the id up to which entries are too old to stay; `FIRST_ID` where there is no such age."""
    return FIRST_ID if keep.age is None else id_before(id_at(now - keep.age))


def _unacked(view: StreamView, holding: _Holding) -> int | None:
    """Return how many entries the last live group has yet to ack; None where the server does not know.

    Those are what it was not yet given, and what is pending.
    """
    groups = [group for group in view.info.groups if group.group in holding.live]
    lags = [group.lag for group in groups]
    if None in lags:
        return None
    return max((group.pending + (group.lag or 0) for group in groups), default=0)
