"""Keeps streams down to what their retention allows. One process at a time does so, for all streams of a prefix.

It decides when and where; `trimmer.py` what may go, `group_directory.py` who holds a stream.
"""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice

from hyperbus.clock import Clock, Seconds
from hyperbus.errors import HyperbusError, OutOfMemoryError, ServerError
from hyperbus.event.data import EventData
from hyperbus.event.retention import Keep
from hyperbus.logger import get_logger
from hyperbus.runtime.coordination.lease import Lease
from hyperbus.runtime.coordination.refusals import Refusals
from hyperbus.runtime.retention.ended_streams import EndedStreams
from hyperbus.runtime.retention.group_directory import GroupDirectory
from hyperbus.runtime.retention.policies import Policies, pages
from hyperbus.runtime.retention.stream_view import StreamView
from hyperbus.runtime.retention.trimmer import Trimmer
from hyperbus.settings import Settings
from hyperbus.signals import Announcer, BoundReached
from hyperbus.transport import StreamInfo, Transport, record_names

#: How often streams are looked over, before jitter; sooner after much was cut.
INTERVAL: Seconds = 1.0
_SOON: Seconds = 0.25
_MUCH = 5_000
#: How long the right to do so is kept without being used.
LEASE: Seconds = 5.0
#: How long one stream may be cut before the others are looked at.
BUDGET: Seconds = 0.3
#: Streams that are looked at in one round when nothing happens in them.
QUIET_STREAMS = 1_000
#: How often policies are read again, and all streams are looked for.
REFRESH: Seconds = 10.0
#: Streams that are kept down, at most.
MOST_STREAMS = 100_000
#: A search of the whole server takes no more than a share of one in so many of its time.
SCAN_SHARE = 20
_LISTED_PAGE = 5_000
#: How far back the directory is read again between two such looks: clocks of publishers differ.
_OVERLAP: Seconds = 60.0
_STREAM = re.compile(r"(@[A-Za-z0-9_.-]+|[a-z0-9_]+(?:\.[a-z0-9_]+)*)(?::[0-9]+)?")


class RetentionLoop:
    """Runs in every process that runs workers; the one that holds the lease works."""

    def __init__(
        self,
        transport: Transport,
        announcer: Announcer,
        clock: Clock,
        settings: Settings,
        *,
        prefix: str,
        types: Mapping[str, type[EventData]],
        interval: Seconds = INTERVAL,
    ) -> None:
        self._streams = transport.streams
        self._records = transport.records
        self._clock = clock
        self._prefix = prefix
        self._types = types
        self._interval = interval
        self._lease = Lease(transport.records, record_names.RETENTION_LEASE, secrets.token_hex(8), LEASE)
        self._policies = Policies(transport.records, Keep(age=settings.retain_age, bytes=settings.retain_bytes))
        self._groups = GroupDirectory(transport, announcer, clock, abandon_after=settings.abandon_after)
        self._trimmer = Trimmer(transport.streams, self._groups, announcer, clock, ghost_bytes=settings.ghost_bytes)
        self._log = get_logger("hyperbus.retention")
        self._refusals = Refusals(announcer, "retention")
        self._weighs = True
        self._refused: set[str] = set()
        self._declared = False
        self._names: dict[str, str] = {}
        self._busy: set[str] = set()
        self._lengths: dict[str, int] = {}
        self._quiet_from = 0
        self._ended = EndedStreams(transport, clock, prefix=prefix)
        self._announcer = announcer
        self._listed: dict[str, float] = {}
        self._is_full = False
        self._seen_until = float("-inf")
        self._refresh_at = 0.0
        self._mine = False

    async def run(self) -> None:
        """Look streams over until cancelled."""
        pause = self._interval
        try:
            while True:
                await self._clock.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
                try:
                    cut = await self.round()
                except HyperbusError as error:
                    self._start_anew()
                    self._refusals.failed(error)
                    pause = self._interval
                    continue
                self._refusals.succeeded()
                pause = _SOON * self._interval if cut >= _MUCH else self._interval
        finally:
            if self._mine:
                with suppress(HyperbusError):  # failing leaves it to its time
                    await self._lease.release()

    async def round(self) -> int:
        """Look streams over once, if this process has the right to; return how many entries were cut.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses.
        """
        if not self._declared:
            with suppress(OutOfMemoryError):  # cutting is what helps; then it can be written down
                await self._policies.declare(self._types)
                self._declared = True
        if not await self._hold():
            return 0
        await self._find()
        cut = 0
        for page in pages(self._due()):
            if not await self._hold():
                return cut
            cut += await self._trim_page(page)
        return cut

    async def _hold(self) -> bool:
        try:
            held = await self._lease.hold()
        except OutOfMemoryError:
            held = await self._hold_when_full()
        if self._mine and not held:
            self._start_anew()
        self._mine = held
        return held

    async def _hold_when_full(self) -> bool:
        """Keep the lease on a server that stores nothing any more; take it as held where nobody has it."""
        if self._mine:
            await self._lease.renew()
            return True
        return await self._lease.is_free()

    def _start_anew(self) -> None:
        """Trust nothing that was seen before: another process was at work, or the server was away."""
        self._mine = False
        self._groups.forget()
        self._trimmer.forget()
        self._refresh_at = 0.0
        self._seen_until = float("-inf")

    # -- which streams

    async def _find(self) -> None:
        """Find streams: new ones of hyperbus at once, those of other programs at the next refresh."""
        everything = self._clock.monotonic() >= self._refresh_at
        began, now = self._clock.monotonic(), await self._records.server_time()
        members = dict(await self._listed_since(float("-inf") if everything else self._seen_until - _OVERLAP))
        self._seen_until = now
        self._listed = members if everything else {**self._listed, **members}
        found = list(members)
        if everything:
            found += await self._streams.scan(f"{self._prefix}:*")
            ended = self._clock.monotonic()
            self._refresh_at = ended + max(REFRESH, SCAN_SHARE * (ended - began))
        new = {stream: kind for stream in found if (kind := _type_of(self._prefix, stream)) is not None}
        if everything:
            gone = self._names.keys() - new.keys()
            self._trimmer.forget(gone)
            self._names = {}
            self._busy -= gone
            self._refused -= gone
            for stream in gone:
                self._lengths.pop(stream, None)
        self._names |= dict(islice(new.items(), MOST_STREAMS))
        if len(new) > MOST_STREAMS and not self._is_full:
            self._is_full = True
            self._announcer.announce(BoundReached("streams that are kept down", MOST_STREAMS))
        unread = [kind for kind in set(self._names.values()) if everything or self._policies.of(kind) is None]
        await self._policies.read(unread)

    async def _listed_since(self, since: float) -> list[tuple[str, float]]:
        """Return members of the directory, those that were entered last first."""
        found: list[tuple[str, float]] = []
        while len(found) <= MOST_STREAMS:
            page = await self._records.members(
                record_names.STREAM_DIRECTORY, minimum=since, count=_LISTED_PAGE, offset=len(found), newest=True
            )
            if not page:
                break
            found += page
        return found

    def _due(self) -> list[str]:
        """Return the streams that something happens in, and some of the others, so that each is looked at."""
        quiet = [name for name in self._names if name not in self._busy]
        start = self._quiet_from % len(quiet) if quiet else 0
        some = (quiet + quiet)[start : start + min(QUIET_STREAMS, len(quiet))]
        self._quiet_from = start + len(some)
        return [*(name for name in self._busy if name in self._names), *some]

    # -- a page of them

    async def _trim_page(self, page: Sequence[str]) -> int:
        infos = await self._look(page)
        await self._groups.update(infos)
        there = [info for info in infos.values() if info is not None and info.length]
        for name, info in infos.items():
            length = 0 if info is None else info.length
            changed = self._lengths.get(name) not in (None, length)
            (self._busy.add if changed else self._busy.discard)(name)
            self._lengths[name] = length
        names = [info.stream for info in there]
        oldest = await self._streams.oldest(names)
        weights = await self._weigh(names)
        now = await self._records.server_time()
        await self._end(infos, now)
        cut = 0
        for info, first, weight in zip(there, oldest, weights, strict=True):
            keep = self._policies.of(self._names[info.stream])
            if first is None or keep is None:
                continue
            until = self._clock.monotonic() + BUDGET
            try:
                went = await self._trimmer.trim(StreamView(info, first, weight, keep), now=now, until=until)
            except ServerError as error:  # it is gone, or no stream any more: it harms no other
                self._tell_once(info.stream, error)
                continue
            self._refused.discard(info.stream)
            cut += went
            if went:
                self._busy.add(info.stream)
        return cut

    async def _end(self, infos: Mapping[str, StreamInfo | None], now: float) -> None:
        """Let streams go that have come to an end."""
        gone, soon = await self._ended.remove(infos, self._listed, now)
        self._busy.update(soon)  # so that they are looked at in the next round
        for stream in gone:
            self._names.pop(stream, None)
            self._listed.pop(stream, None)
            self._lengths.pop(stream, None)
            self._groups.drop(stream)
        self._busy.difference_update(gone)
        self._trimmer.forget(gone)

    def _tell_once(self, stream: str, error: ServerError) -> None:
        if stream not in self._refused:
            self._refused.add(stream)
            self._log.warning("a stream cannot be kept down", stream=stream, error=str(error))

    async def _look(self, page: Sequence[str]) -> dict[str, StreamInfo | None]:
        """Return the state of streams. A key that is none harms no other."""
        try:
            return dict(zip(page, await self._streams.info(page), strict=True))
        except ServerError:
            found: dict[str, StreamInfo | None] = {}
            for name in page:
                with suppress(ServerError):
                    (found[name],) = await self._streams.info([name])
            return found

    async def _weigh(self, names: Sequence[str]) -> Sequence[int | None]:
        if self._weighs:
            try:
                return await self._streams.stream_bytes(names)
            except ServerError as error:
                self._weighs = False
                self._log.warning("the server tells no stream's weight: nothing is bounded by bytes", error=str(error))
        return [None] * len(names)


def _type_of(prefix: str, stream: str) -> str | None:
    """Return the event type of a stream or of a part of one, or `@agent`; None for a key that is neither."""
    head, _, rest = stream.partition(":")
    match = _STREAM.fullmatch(rest) if head == prefix else None
    return None if match is None else match[1]
