"""A transport around another one, whose methods a test may count, replace, hang or break."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from hyperbus.transports.memory import MemoryTransport

#: Stands in for a method: gets the method itself first, then its arguments.
Override = Callable[..., Awaitable[Any]]


class Through:
    """Passes every call on, and keeps it; `overrides` says which methods do something else."""

    def __init__(self, inner: Any, overrides: dict[str, Override] | None = None) -> None:
        self.inner = inner
        self.overrides: dict[str, Override] = {} if overrides is None else overrides
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append((name, arguments))
            override = self.overrides.get(name)
            return await (override(method, *arguments, **named) if override else method(*arguments, **named))

        return call

    def called(self, name: str) -> list[tuple[Any, ...]]:
        """Return the arguments of each call of a method."""
        return [arguments for called, arguments in self.calls if called == name]


class FaultyTransport:
    """A memory transport that can fail. Readers share `reader_overrides`."""

    def __init__(self, inner: Any = None) -> None:
        self.inner = inner or MemoryTransport()
        self.streams: Any = Through(self.inner.streams)
        self.records: Any = Through(self.inner.records)
        self.reader_overrides: dict[str, Override] = {}
        self.readers: list[Any] = []
        self.description = self.inner.description

    @property
    def era(self) -> int:
        return int(getattr(self.inner, "era", 0))

    async def open(self) -> None:
        await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    def open_reader(self) -> Any:
        self.readers.append(Through(self.inner.open_reader(), self.reader_overrides))
        return self.readers[-1]

    def separate(self) -> Any:
        return self.inner.separate()
