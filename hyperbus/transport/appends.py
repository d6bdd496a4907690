"""The contract of appending: plainly, durably, once, and as a notice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from hyperbus.clock import Seconds
from hyperbus.errors import HyperbusError
from hyperbus.transport.entries import Durability, NewEntry

#: Entries that are made and sent at a time while others are under way, and of these the first: the sooner the server
#: begins, the less it waits for us.
PIECE = 128
FIRST_PIECE = 32
#: What became of an entry that was to be appended: its id, or the error it met.
AppendResult = str | HyperbusError
#: Hears what became of entries, in order, while others of the same append are under way.
Tell = Callable[[Sequence[AppendResult]], None]


class Appends(Protocol):
    """What puts entries into streams."""

    async def append(
        self, entries: Iterable[NewEntry], *, durability: Durability | None = None, tell: Tell | None = None
    ) -> list[AppendResult]:
        """Append entries in order (XADD); return one item an entry, in order: its id, or the error it met.

        Entries may be made while they are asked for: the first are on their way before the last are made. `tell` may be
        called with the first items of what is returned later, and then with the next ones; or never.

        `BusUnavailable`: it was not sent. `PublishUncertain`: it was sent and no answer came.
        `PublishRefusedError`: the server said no. `NotDurable`: it is stored, but what `durability` asks for was not
        reached in time. Never raises these.

        With `durability` it waits that much longer, and behind other appends that wait; ask `check_durability` once
        before, as some servers answer without having done anything. A place that can never do it refuses every
        entry with `DurabilityUnsupported`, and stores none.
        """
        ...

    async def append_once(
        self, entries: Sequence[tuple[NewEntry, str]], *, window: Seconds, durability: Durability | None = None
    ) -> list[AppendResult]:
        """Append (entry, event id) in order, where the stream was not given that event id within `window`.

        Returns what `append` returns; for a repeat, the id of the entry that is there, and nothing is added. The
        window starts again with a repeat. Asking again after any error is safe within the window. Atomic for each
        entry.
        """
        ...

    async def append_notice(self, stream: str, field: bytes, body: bytes, *, keep: int) -> str:
        """Append one entry and return its id; keep about the last `keep` entries, at least that many (MAXLEN ~)."""
        ...

    async def check_durability(self, durability: Durability) -> None:
        """Check that the server can tell whether the level was reached. It may be configured differently later.

        Raises:
            DurabilityUnsupported: it cannot; the message says what it would take.
        """
        ...
