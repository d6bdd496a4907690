"""Streams that have come to an end: nothing is in them, and nothing has come for long. They leave the server.

One type a run is what some programs do; each would stay as an empty stream, with its groups, for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hyperbus.clock import Clock, Seconds
from hyperbus.runtime.retention.group_directory import release
from hyperbus.transport import FIRST_ID, StreamInfo, Transport, id_key, record_names
from hyperbus.transport.births import write_births

#: How long nothing must have come.
ENDED_AFTER: Seconds = 600.0
#: How long workers have to let go of it, before it is removed; and after what time they are told once more.
LET_GO, TELL_AGAIN = 0.5, 5.0
#: A member of the directory whose stream is not there may belong to one that is just being born: publishers enter a
#: stream no longer than half this time before they publish into it.
BEING_BORN: Seconds = 60.0


class EndedStreams:
    """Removes them, in two steps: workers are told to let go, and a moment later the stream goes, if nothing came.

    Workers that read a stream by its name do not let go; they make it again, without an entry and outside the
    directory, and so it stays.
    """

    def __init__(self, transport: Transport, clock: Clock, *, prefix: str) -> None:
        self._streams = transport.streams
        self._records = transport.records
        self._clock = clock
        self._notices = record_names.notices_key(prefix)
        self._told: dict[str, float] = {}

    async def remove(
        self, infos: Mapping[str, StreamInfo | None], listed: Mapping[str, float], now: float
    ) -> tuple[list[str], list[str]]:
        """Take what of this page has ended further; return what is gone, and what will be soon.

        Args:
            infos: what the streams look like.
            listed: when each that is in the directory was last entered there.
            now: the server's time.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses.
        """
        missing = [name for name, info in infos.items() if info is None and listed.get(name, now) < now - BEING_BORN]
        ended = await self._ended(infos, listed, now)
        if not missing and not ended:
            return [], []
        time = self._clock.monotonic()
        ripe = {name: last for name, last in ended.items() if LET_GO <= time - self._told.pop(name, time) < TELL_AGAIN}
        gone = list(missing)
        for name, last in ripe.items():
            groups = [group.group for group in (infos[name] or StreamInfo(name, 0, [])).groups]
            if await self._streams.remove_ended(name, last, groups):
                gone.append(name)
                for group in groups:
                    await release(self._records, name, group)
        if gone:
            await self._records.remove_members(record_names.STREAM_DIRECTORY, gone, maximum=now - BEING_BORN)
        return gone, await self._tell([name for name in ended if name not in ripe], time)

    async def _ended(
        self, infos: Mapping[str, StreamInfo | None], listed: Mapping[str, float], now: float
    ) -> dict[str, bytes]:
        """Return the streams that have ended, with the last id that each gave out."""
        until = now - ENDED_AFTER
        empty = [name for name, info in infos.items() if info is not None and not info.length and not _waits(info)]
        empty = [name for name in empty if listed.get(name, until) <= until]
        last_ids = await self._streams.last_ids(empty) if empty else []
        return {
            name: last
            for name, last in zip(empty, last_ids, strict=True)
            if id_key(last)[0] / 1000 <= until and (last != FIRST_ID or name in listed)
        }

    async def _tell(self, names: Sequence[str], time: float) -> list[str]:
        if names:
            body = write_births(names)
            if not body:
                names = names[: len(names) // 2]
                body = write_births(names)
            await self._streams.append_notice(
                self._notices, record_names.STREAM_ENDED, body, keep=record_names.KEPT_NOTICES
            )
            self._told.update(dict.fromkeys(names, time))
        return list(names)


def _waits(info: StreamInfo) -> bool:
    return any(group.pending for group in info.groups)
