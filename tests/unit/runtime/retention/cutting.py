"""One process that keeps retention, on a memory and a clock of its own, round by round."""

from __future__ import annotations

from typing import Any

from hyperbus.event.retention import Declared, Keep, write_declared
from hyperbus.runtime.retention.retention_loop import RetentionLoop
from hyperbus.settings import Settings
from hyperbus.signals import Announcer, CutUnread
from hyperbus.transport import NewEntry, record_names
from hyperbus.transports.memory import MemoryTransport
from tests.faults import FaultyTransport
from tests.recorder import Recorder

STREAM = "events:a"


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, delay: float) -> None:
        raise AssertionError("nothing waits here")


class Cutting:
    """One process that keeps retention, on a memory of its own, round by round."""

    def __init__(self, keep: Keep | None = None, **settings: Any) -> None:
        self.clock = HandClock()
        self.transport = FaultyTransport(MemoryTransport(clock=self.clock))
        self.recorder = Recorder()
        self.keep = keep
        self.settings = Settings(**{"abandon_after": 86_400.0, **settings})
        self.streams, self.records = self.transport.inner.streams, self.transport.inner.records
        self.retention = self.another()

    def another(self) -> RetentionLoop:
        """Return another process that would keep it."""
        announcer = Announcer([self.recorder])
        return RetentionLoop(self.transport, announcer, self.clock, self.settings, prefix="events", types={})  # type: ignore[arg-type]

    async def begin(self, count: int, *groups: str, size: int = 10) -> list[bytes]:
        """Fill the stream, one entry each millisecond, with groups that read from the first; return the ids."""
        if self.keep is not None:
            await self.records.put(record_names.retention_policy("a"), write_declared(Declared(self.keep, "m.C")))
        await self.streams.create_groups([(STREAM, group, b"0-0") for group in groups])
        return await self.fill(count, size=size)

    async def fill(self, count: int, *, size: int = 10) -> list[bytes]:
        """Append entries."""
        ids: list[bytes] = []
        for _ in range(count):
            self.clock.time += 0.001
            ids += [str(i).encode() for i in await self.streams.append([NewEntry(STREAM, b"data", b"x" * size)])]
        return ids

    async def read(self, group: str, count: int, *, ack: bool = True, consumer: str = "c") -> list[bytes]:
        """Let a group read, and ack unless told otherwise."""
        reader = self.transport.inner.open_reader()
        read = await reader.read_group(group, consumer, [STREAM], count=count, block=0)
        await reader.close()
        ids = [entry.id for _, entries in read for entry in entries]
        if ack:
            await self.streams.ack([(STREAM, group, ids)])
        return ids

    async def pass_time(self, seconds: float, *, rounds: int = 1) -> None:
        """Let time pass, with rounds in between."""
        for _ in range(rounds):
            self.clock.time += seconds / rounds
            await self.retention.round()

    async def left(self) -> int:
        """Return how many entries there are."""
        (info,) = await self.streams.info([STREAM])
        return 0 if info is None else info.length

    def unread(self) -> dict[tuple[str, str], int]:
        """Return what was told to have been cut unread, by group and reason."""
        found: dict[tuple[str, str], int] = {}
        for signal in self.recorder.of(CutUnread):
            found[signal.group, signal.reason] = found.get((signal.group, signal.reason), 0) + signal.count
        return found
