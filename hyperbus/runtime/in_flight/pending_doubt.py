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
        self._raised = True

    def arise_urgently(self) -> None:
        """Have it asked for at once: a read that waits is interrupted."""
        self._raised = True
        self._urgent.set()

    async def urgent(self) -> None:
        """Wait until it is to be asked for at once; each time that is told once."""
        await self._urgent.wait()
        self._urgent.clear()

    @contextmanager
    def settling(self) -> Iterator[None]:
        """Settle it: it stays where that fails, and arises anew where it does meanwhile."""
        self._raised, self._settling = False, True
        try:
            yield
        except BaseException:
            self._raised = True
            raise
        finally:
            self._settling = False
