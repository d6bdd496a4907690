"""How much a read may ask for: by the sizes of the entries that were seen, and less after a read that failed. Pure."""

from __future__ import annotations

from typing import Final

#: Bytes that a read asks for, at most, as far as sizes are known.
READ_BYTES: Final = 16 * 1024 * 1024
#: Size that an entry is taken to have before one was seen: the largest that publishers send by default.
FIRST_SIZE: Final = 1024 * 1024
#: How much smaller entries are taken to be, at most, than those before them: sizes are learnt step by step.
STEP: Final = 4
#: Reads as large as they may be that have to pass before one tries how much more would.
TRY_AGAIN: Final = 100
#: More entries than any read asks for.
ANY: Final = 1_000_000
_SMALLEST = 64.0


class ReadSize:
    """Knows how many entries the next read may ask for.

    1. What entries weigh is learnt from those that came; the first are taken to be large.
    2. A read that broke off, or took too long, may have asked for more than the way here or the server takes: the next
       asks for a quarter. From there it goes up again, and stays below what failed for as many reads as `TRY_AGAIN`.

    Attributes:
        most: entries that a read may ask for, of all its streams together.
        seen: what an entry weighs, in bytes.
    """

    def __init__(self) -> None:
        self.most = ANY
        self.seen = float(FIRST_SIZE)
        self._too_many = 2 * ANY
        self._passed = 0

    def fits(self, room: float) -> int:
        """Return how many entries to ask for where there is room for so many bytes."""
        return int(min(room, READ_BYTES) / self.seen)

    def saw(self, entries: int, size: int) -> None:
        """Take note of entries that came, and their size in bytes, all together."""
        self.seen = max(size / entries, self.seen / STEP, _SMALLEST)

    def failed(self, asked: int) -> None:
        """Take note of a read for so many entries that failed."""
        self._too_many, self._passed = max(2, asked), 0
        self.most = max(1, asked // STEP)

    def passed(self, entries: int) -> None:
        """Take note of a read that brought so many entries."""
        if entries < self.most:
            return
        self._passed += 1
        if self._passed >= TRY_AGAIN:
            self._too_many, self._passed = 2 * ANY, 0
        if 2 * self.most < self._too_many:
            self.most *= 2
