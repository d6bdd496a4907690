"""Whether more may be pending with this worker than it knows of. Many raise this doubt, one settles it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from hyperbus.runtime.coordination.era import Era


class PendingDoubt:
    """A read, a claim or a handover may have been answered unheard: what it brought is pending here, and older.

    Reader, reclaimer, retry scheduler and handover raise it; only `reading.pending_recovery` settles it.
    """

    def __init__(self, era: Era | None = None) -> None:
        #: Its end raises the doubt too: what is held may be pending here no more.
        self.era = era or Era()
        self._raised = False
        self._settling = False
        #: Whether something went wrong; else entries were only handed over.
        self._amiss = False
        self._urgent = asyncio.Event()

    @property
    def raised(self) -> bool:
        """Whether what is pending has to be asked for before the next read."""
        return self._raised or self.era.is_over

    @property
    def unsettled(self) -> bool:
        """Whether it has to be asked for, or is being asked for now."""
        return self.raised or self._settling

    def arise(self) -> None:
        """Have what is pending asked for before the next read."""
        self._raised = self._amiss = True

    def arise_urgently(self) -> None:
        """Have it asked for at once: a read that waits is interrupted."""
        self.arise()
        self._urgent.set()

    def expect(self) -> None:
        """Have it asked for at once: another worker has handed entries over, and nothing is amiss."""
        self._raised = True
        self._urgent.set()

    async def urgent(self) -> None:
        """Wait until it is to be asked for at once; each time that is told once."""
        await self._urgent.wait()
        self._urgent.clear()

    @contextmanager
    def settling(self) -> Iterator[bool]:
        """Settle it: it stays where that fails, and arises anew where it does meanwhile.

        Yields whether something was amiss, and not only handed over.
        """
        amiss, self._raised, self._settling, self._amiss = self._amiss, False, True, False
        try:
            yield amiss
        except BaseException:
            self._raised, self._amiss = True, amiss or self._amiss
            raise
        finally:
            self._settling = False
