"""Worker processes whose supervisor was killed, with real ones: they end, and so does what they held."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from hyperbus import Bus, Event
from hyperbus.settings import Settings
from tests.integration.test_supervisor import WITHIN, Project, gone, running
from tests.recorder import eventually
from tests.servers import Server
from tests.unit.runtime.running import unique

pytestmark = pytest.mark.one_server


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


PROGRAM = """
import asyncio, sys
from pathlib import Path
from hyperbus.settings import Settings
from hyperbus.supervisor.supervisor import Supervisor, run_until_signalled
url, prefix = (sys.argv[3:] + ["memory://", "events"])[:2]
settings = Settings(url=url, prefix=prefix, http_port=0, websocket_port=0, drain_timeout=1.0)
supervisor = Supervisor([sys.argv[1]], settings, processes=2, folder=Path(sys.argv[2]))
def ready():
    print(*(process.pid for process in supervisor.processes), flush=True)
asyncio.run(run_until_signalled(supervisor, ready=ready))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_processes_end_with_their_supervisor(project: Project, number: signal.Signals) -> None:
    """Killed without a chance to say so, or told to stop: no worker process goes on."""
    project.write()
    program, pids = await start_program(project)
    program.send_signal(number)
    assert await asyncio.wait_for(program.wait(), WITHIN) == (0 if number == signal.SIGTERM else -number)
    await eventually(lambda: all(gone(pid) for pid in pids), within=WITHIN)


async def test_what_a_killed_supervisor_left_goes_with_the_next_one(
    project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is kept for its processes while they drain; none is left in the end."""
    place = tmp_path_factory.mktemp("place")
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    project.write()
    program, pids = await start_program(project)
    (left,) = place.glob("hyperbus-metrics-*")
    os.kill(pids[0], signal.SIGSTOP)
    program.kill()
    await eventually(lambda: gone(program.pid))
    async with running(project.supervisor()):
        assert left.exists()
    os.kill(pids[0], signal.SIGKILL)
    await eventually(lambda: all(gone(pid) for pid in pids), within=WITHIN)
    await program.wait()
    async with running(project.supervisor()):
        assert not left.exists()
    assert list(place.iterdir()) == []


async def test_a_process_that_blocks_ends_when_its_supervisor_was_killed(project: Project, server: Server) -> None:
    """Its event loop notices nothing, and its heartbeat would go on: what it holds would be nobody's for ever."""
    project.write("note('begun'); time.sleep(60)")
    prefix = unique("p")
    program, pids = await start_program(project, server.url, prefix)
    async with Bus(settings=Settings(url=server.url, prefix=prefix)) as bus:
        await bus.publish(Event(type=project.kind, data={"n": 1}))
        await eventually(lambda: project.seen("begun"), within=WITHIN)
    program.kill()
    await asyncio.wait_for(program.wait(), WITHIN)
    await eventually(lambda: all(gone(pid) for pid in pids), within=WITHIN)


async def start_program(project: Project, *words: str) -> tuple[asyncio.subprocess.Process, list[int]]:
    """Start a supervisor in a process of its own; return it, and the ids of its worker processes."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, project.module, str(project.folder), *words, stdout=asyncio.subprocess.PIPE
    )
    assert program.stdout is not None
    pids: list[int] = []
    async with asyncio.timeout(WITHIN):
        while not pids:
            found = (await program.stdout.readline()).split()
            pids = [int(word) for word in found] if found and all(word.isdigit() for word in found) else []
    return program, pids
