"""What is cleared up after a worker process that is gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from hyperbus.clock import SystemClock
from hyperbus.supervisor.launcher import ProcessLauncher
from hyperbus.supervisor.run_state import RunState
from hyperbus.transport import record_names
from hyperbus.transports.memory import MemoryTransport


class Folder:
    """Notes whose counts were kept."""

    def __init__(self) -> None:
        self.folded: list[int] = []

    async def fold(self, pid: int) -> None:
        self.folded.append(pid)


async def test_nobody_waits_for_any_worker_of_a_process_that_is_gone() -> None:
    """All heartbeats of its workers go, those of another process stay, and its counts are kept."""
    transport, folder = MemoryTransport(), Folder()
    await transport.open()
    gone, others = {f"gone-{number}" for number in range(4)}, {"other-1", "other-2"}
    for name in gone | others:
        await transport.records.put(record_names.heartbeat(name), b"about")
    launcher = ProcessLauncher(
        cast("Any", None), SystemClock(), RunState(), environment={}, descriptors=(), end_within=1.0,
        metrics=cast("Any", folder), records=transport.records,
    )  # fmt: skip
    await launcher.clear_up(cast("Any", SimpleNamespace(workers=gone, pid=17)))
    left = {name for name in gone | others if await transport.records.get([record_names.heartbeat(name)]) != [None]}
    assert left == others
    assert folder.folded == [17]
