"""Which retention each type has: what classes declare, written down on the server for the process that cuts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hyperbus.event.data import EventData, declared_retention
from hyperbus.event.retention import Declared, Keep, read_declared, write_declared
from hyperbus.transport import Records, record_names

#: Policies, and streams, that are asked for in one go.
PAGE = 100


class Policies:
    """The policy of each type: what its class declares, written down for the process that cuts."""

    def __init__(self, records: Records, default: Keep) -> None:
        self._records = records
        self._default = default
        self._own: dict[str, Keep] = {}
        self._known: dict[str, Keep] = {}

    async def declare(self, types: Mapping[str, type[EventData]]) -> None:
        """Write down what classes of this process declare. A class that declares nothing takes back only its own.

        Raises:
            BusUnavailable, ServerError: the server is away, or refuses.
        """
        declared = declared_retention(types)
        self._own = {name: told.keep for name, told in declared.items() if isinstance(told, Declared)}
        names = list(declared)
        for page in pages(names):
            written = await self._records.get([record_names.retention_policy(name) for name in page])
            for name, old in zip(page, written, strict=True):
                told, found = declared[name], read_declared(old)
                if isinstance(told, Declared):
                    if told != found:
                        await self._records.put(record_names.retention_policy(name), write_declared(told))
                elif found is not None and found.place == told:
                    await self._records.delete([record_names.retention_policy(name)])

    async def read(self, types: Sequence[str]) -> None:
        """Read what is written down for these types, by any process."""
        for page in pages(types):
            written = await self._records.get([record_names.retention_policy(name) for name in page])
            for name, value in zip(page, written, strict=True):
                found = read_declared(value)
                self._known[name] = self._own.get(name, self._default) if found is None else found.keep

    def of(self, event_type: str) -> Keep | None:
        """Return the policy of a type; None when it was not read yet."""
        return self._known.get(event_type)


def pages(names: Sequence[str]) -> list[Sequence[str]]:
    """Return names page by page."""
    return [names[start : start + PAGE] for start in range(0, len(names), PAGE)]
