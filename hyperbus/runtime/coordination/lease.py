"""A time-limited right that one worker holds at a time."""

from __future__ import annotations

from hyperbus.clock import Seconds
from hyperbus.transport import Records, record_names


class Lease:
    """A right to something, kept as a record that goes away by itself when its holder dies.

    It saves work and is not a guard: what is done under it must be safe when two believe that they hold it.
    """

    def __init__(self, records: Records, name: str, holder: str, ttl: Seconds) -> None:
        self._records = records
        self._name = record_names.lease(name)
        self._holder = holder.encode()
        self._ttl = ttl

    async def hold(self) -> bool:
        """Take the lease, or keep it for another TTL; tell whether it is held now. One or two round trips."""
        if await self._records.compare_and_set(self._name, self._holder, self._holder, ttl=self._ttl):
            return True
        return await self._records.compare_and_set(self._name, None, self._holder, ttl=self._ttl)

    async def renew(self) -> None:
        """Let it live for another TTL, whoever holds it. A full server, which takes no `hold`, takes this."""
        await self._records.renew([self._name], ttl=self._ttl)

    async def is_free(self) -> bool:
        """Tell whether nobody holds it."""
        return (await self._records.get([self._name]))[0] is None

    async def release(self) -> None:
        """Give the lease up, if it is held."""
        await self._records.compare_and_set(self._name, self._holder, None)
