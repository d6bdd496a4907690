"""A place for a process: what is told while the system has no room for one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from hyperbus.errors import HyperbusError
from hyperbus.supervisor import slot as slots
from hyperbus.supervisor.restart_policy import RestartPolicy
from hyperbus.supervisor.run_state import RunState
from hyperbus.supervisor.slot import Slot
from tests.recorder import eventually


class Launcher:
    """Starts processes that are ready at once, while there is room."""

    def __init__(self) -> None:
        self.room = True
        self.refused = 0
        self.processes: list[Any] = []

    async def launch(self) -> Any:
        if not self.room:
            self.refused += 1
            raise HyperbusError("no room")
        ready, death = asyncio.Event(), asyncio.Event()
        ready.set()

        async def dies() -> int:
            await death.wait()
            return -9

        process = SimpleNamespace(
            ready=ready, death=death, ended=asyncio.create_task(dies()), failed=None, alive=SimpleNamespace(alone=False), lived=1.0, pid=1,
            killed_because="", how_it_ended=lambda: "died",
        )  # fmt: skip
        self.processes.append(process)
        return process

    async def clear_up(self, process: Any) -> None: ...

    async def see_out(self, process: Any) -> int:
        process.death.set()
        await process.ended
        return 0


async def test_want_of_room_is_told_once_each_time_that_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at every try; and again when there was room in between."""
    monkeypatch.setattr(slots, "LAUNCH_AGAIN", 0.001)
    launcher, state = Launcher(), RunState()
    slot = Slot(cast("Any", launcher), state, RestartPolicy(short_pause=0.001, longest_pause=0.001))
    with capture_logs() as lines:
        keeping = asyncio.create_task(slot.keep())
        for deaths in (1, 2):
            await eventually(lambda: slot.is_ready and state.was_ready)
            launcher.room, launcher.refused = False, 0
            launcher.processes[-1].death.set()
            await eventually(lambda: launcher.refused >= 3)
            told = [line for line in lines if "missing until there is room" in line["event"]]
            assert [line["reason"] for line in told] == ["no room"] * deaths
            launcher.room = True
        state.stop()
        await asyncio.wait_for(keeping, 10)
