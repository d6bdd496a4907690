"""How far a group has come on each stream: saved on the server, and remembered here should the server forget."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbus.transport import FIRST_ID, Streams, id_key


class Checkpoints:
    """The checkpoints of one group, as far as this worker knows them.

    A checkpoint is an id up to which everything is acked. A group that is lost is made again after it.
    """

    def __init__(self, streams: Streams, group: str) -> None:
        self._streams = streams
        self._group = group
        self._known: dict[str, bytes] = {}

    async def save(self, names: Sequence[str]) -> None:
        """Save the checkpoints of streams on the server; one worker of the group does this.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses a stream.
        """
        self._remember(names, await self._streams.save_checkpoints([(name, self._group) for name in names]))

    async def load(self, names: Sequence[str]) -> None:
        """Remember what the server has; every other worker does this.

        Raises:
            BusUnavailable: the server is away.
        """
        self._remember(names, await self._streams.checkpoints([(name, self._group) for name in names]))

    async def start_of(self, name: str) -> bytes:
        """Return the id after which a lost group is to be made again on a stream; never the stream's end.

        The highest checkpoint known; the beginning where none is, or where the stream was made anew and lies below.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses.
        """
        (saved,) = await self._streams.checkpoints([(name, self._group)])
        (last,) = await self._streams.last_ids([name])
        known = max(saved or FIRST_ID, self._known.get(name, FIRST_ID), key=id_key)
        return FIRST_ID if id_key(last) < id_key(known) else known

    def _remember(self, names: Sequence[str], checkpoints: Sequence[bytes | None]) -> None:
        for name, checkpoint in zip(names, checkpoints, strict=True):
            if checkpoint is not None:
                self._known[name] = checkpoint
