"""The supervisor with real worker processes: ready, restarted, drained, given up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from hyperbus import Bus, Event, HyperbusError
from hyperbus.errors import (
    BusUnavailable,
    ConsumersNotFoundError,
    CrashLoopError,
    DrainTimeoutError,
    InvalidSettingError,
    PortInUseError,
)
from hyperbus.settings import Settings
from hyperbus.supervisor.limits import LEAST_LIFE, Limits
from hyperbus.supervisor.restart_policy import RestartPolicy
from hyperbus.supervisor.supervisor import GRACE, Supervisor, run_until_signalled
from tests.recorder import eventually
from tests.servers import Server
from tests.unit.runtime.running import unique

pytestmark = pytest.mark.one_server

WITHIN = 15.0
#: Appends what it is handed to a file, so that the test sees it.
WRITES = """
import asyncio, os, signal, time
from pathlib import Path
from hyperbus import Consumer, Event, consumer

seen = Path({folder!r}) / "seen"

def note(text):
    with seen.open("a") as file:
        file.write(text + "\\n")

note(f"loaded {{os.getpid()}}")

@consumer(group={group!r}, types=[{kind!r}])
async def handler(event: Event) -> None:
    {what}
    note(f"handled {{event.data['n']}} {{os.getpid()}}")
"""


class Project:
    """A folder with one module, and what its consumers noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kind, self.group, self.module = unique(), unique(), unique("m")

    def write(self, what: str = "pass", text: str = WRITES) -> None:
        (self.folder / f"{self.module}.py").write_text(
            text.format(folder=str(self.folder), group=self.group, kind=self.kind, what=what)
        )

    def seen(self, word: str) -> list[str]:
        noted = self.folder / "seen"
        lines = noted.read_text().splitlines() if noted.exists() else []
        return [line for line in lines if line.startswith(word)]

    def supervisor(
        self,
        processes: int = 1,
        *,
        restart_policy: RestartPolicy | None = None,
        grace: float = GRACE,
        least_life: float = LEAST_LIFE,
        **settings: Any,
    ) -> Supervisor:
        chosen = {"url": "memory://", "http_port": 0, "websocket_port": 0, "heartbeat_ttl": 0.5, "drain_timeout": 1.0}
        whole = Settings(**{**chosen, **settings})
        return Supervisor(
            [self.module],
            whole,
            processes=processes,
            folder=self.folder,
            limits=replace(Limits.of(whole), least_life=least_life),
            restart_policy=restart_policy,
            grace=grace,
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@asynccontextmanager
async def running(supervised: Supervisor) -> AsyncGenerator[asyncio.Task[None]]:
    """Run a supervisor until it is ready; stop it at the end, unless the test did."""
    task = asyncio.create_task(supervised.run())
    try:
        ready = asyncio.create_task(supervised.ready.wait())
        await asyncio.wait((task, ready), timeout=WITHIN, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if task.done():
            task.result()
        assert supervised.ready.is_set()
        yield task
    finally:
        if not task.done():
            supervised.stop()
            await asyncio.wait_for(task, WITHIN)


async def get(port: int | None, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
    answer = (await asyncio.wait_for(reader.read(), 5)).decode()
    writer.close()
    await writer.wait_closed()
    head, _, content = answer.partition("\r\n\r\n")
    return int(head.split()[1]), content


def gone(pid: int) -> bool:
    """Tell whether a process has ended with all its threads: the last of them holds its files open."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z" and len(os.listdir(f"/proc/{pid}/task")) == 1
    except OSError:
        return True


async def test_processes_become_ready_answer_for_themselves_and_drain(project: Project) -> None:
    """Two processes, their pages, and a clean end."""
    project.write()
    supervised = project.supervisor(processes=2)
    async with running(supervised) as task:
        assert len({process.pid for process in supervised.processes}) == 2
        assert (await get(supervised.http_port, "/healthz"))[0] == 200
        await eventually(lambda: all(process.connected for process in supervised.processes))
        assert (await get(supervised.http_port, "/readyz"))[0] == 200
        status, text = await get(supervised.http_port, "/metrics")
        assert status == 200
        assert "hyperbus_" in text
        assert (await get(supervised.http_port, "/nothing"))[0] == 404
    assert task.exception() is None
    assert len(project.seen("loaded")) == 3, "once to look at it, once in each process"


async def test_a_killed_process_is_replaced_and_its_work_done_by_the_next(project: Project, server: Server) -> None:
    """What it held is handled by its successor."""
    project.write("if len(seen.read_text().split('begun')) == 1: note('begun'); await asyncio.sleep(60)")
    supervised = project.supervisor(url=server.url, prefix=unique("p"), heartbeat_ttl=1.0)
    supervised_processes: Callable[[], list[int]] = lambda: [p.pid for p in supervised.processes]  # noqa: E731
    async with running(supervised), Bus(settings=supervised.settings) as bus:
        await bus.publish(Event(type=project.kind, data={"n": 1}))
        await eventually(lambda: project.seen("begun"), within=WITHIN)
        (first,) = supervised_processes()
        await eventually(lambda: supervised.processes[0].workers)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: supervised_processes() not in ([], [first]), within=WITHIN)
        await eventually(lambda: project.seen("handled"), within=WITHIN)
        assert project.seen("handled") == [f"handled 1 {supervised_processes()[0]}"]


async def test_processes_that_keep_dying_are_given_up(project: Project) -> None:
    """A crash loop has its own error, and the pauses between restarts grow."""
    project.write(
        text=WRITES
        + """
@consumer(types=["never"])
class Dies(Consumer):
    async def start(self):
        os._exit(7)
    async def handle(self, event: Event) -> None: ...
"""
    )
    with pytest.raises(CrashLoopError, match=r"2 times in a row \(last exit code 7\)"):
        await asyncio.wait_for(project.supervisor(restart_policy=RestartPolicy(most_deaths=2)).run(), WITHIN)


async def test_poisons_are_no_crash_loop_however_many(project: Project, server: Server) -> None:
    """A process that was ready has started well: what kills it is found out, entry by entry, by two deaths alone."""
    policy = RestartPolicy(most_deaths=3, short_pause=0.1, longest_pause=0.1)
    project.write("if event.data['n'] < 3: os._exit(9)")
    prefix = unique("p")
    async with Bus(settings=Settings(url=server.url, prefix=prefix)) as bus:
        stream, streams = f"{prefix}:{project.kind}", bus.transport.streams
        await bus.publish_many([Event(type=project.kind, data={"n": n}) for n in range(6)])
        supervised = project.supervisor(url=server.url, prefix=prefix, restart_policy=policy)
        task = asyncio.create_task(supervised.run())
        with capture_logs() as logs:
            async with asyncio.timeout(100):
                while not task.done() and len(project.seen("handled")) < 3:
                    await asyncio.sleep(0.05)
                while not task.done() and len(await streams.dead_letters(stream, project.group)) < 3:
                    await asyncio.sleep(0.05)
            supervised.stop()
            await task
        letters = await streams.dead_letters(stream, project.group)
        assert [letter.reason for _, letter in letters] == ["poison"] * 3
    assert sorted({line.split()[1] for line in project.seen("handled")}) == ["3", "4", "5"]
    deaths = [line for line in logs if line["event"] == "worker process died"]
    assert len([line for line in deaths if "suspect" in line]) == 6
    assert 8 <= len(deaths) <= 12


async def test_a_mistake_is_told_once_with_its_exit_code(project: Project) -> None:
    """Before anything runs where it can be; else by the first process that meets it, and the others drain."""
    with pytest.raises(HyperbusError, match="there is no module") as caught:
        await project.supervisor().run()
    assert caught.value.exit_code == ConsumersNotFoundError.exit_code

    project.write(text="1 / 0")
    with pytest.raises(HyperbusError, match="ZeroDivisionError"):
        await project.supervisor().run()

    project.write(
        text=WRITES
        + """
from hyperbus import HyperbusError
class Mine(HyperbusError):
    exit_code = 77
@consumer(types=["never"])
class Refuses(Consumer):
    async def start(self):
        raise Mine("I will not")
    async def handle(self, event: Event) -> None: ...
"""
    )
    with pytest.raises(HyperbusError, match="I will not") as caught:
        await asyncio.wait_for(project.supervisor(processes=2).run(), WITHIN)
    assert caught.value.exit_code == 77


async def test_what_cannot_be_had_is_told_at_the_start(project: Project, tmp_path: Path) -> None:
    """A taken port, a server that is away, a number of processes that makes no sense."""
    project.write()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(PortInUseError, match=str(taken.getsockname()[1])):
            await project.supervisor(http_port=taken.getsockname()[1]).run()
        project.write(text=WRITES + "import hyperbus.sinks.websocket\n")
        with pytest.raises(PortInUseError, match="websocket-port 0"):
            await project.supervisor(websocket_port=taken.getsockname()[1]).run()
    with pytest.raises(BusUnavailable):
        await project.supervisor(url=f"unix://{tmp_path}/nobody.sock").run()
    for processes in (0, 257):
        with pytest.raises(InvalidSettingError, match="processes"):
            project.supervisor(processes=processes)


async def test_a_module_that_needs_the_websocket_port_gets_it(project: Project) -> None:
    """It is bound once, by the supervisor, and its descriptor passed on."""
    project.write(
        text=WRITES + "import hyperbus.sinks.websocket\nnote(f\"port {{os.environ.get('HYPERBUS_WEBSOCKET_FD')}}\")\n"
    )
    supervised = project.supervisor()
    async with running(supervised):
        assert supervised.websocket_port
    assert [line.split()[1] == "None" for line in project.seen("port")] == [True, False]


async def test_work_that_does_not_drain_in_time_is_told(project: Project, server: Server) -> None:
    """The process ends with 22, and so does its supervisor."""
    project.write("note('begun'); await asyncio.sleep(60)")
    supervised = project.supervisor(url=server.url, prefix=unique("p"), drain_timeout=0.2)
    with pytest.raises(DrainTimeoutError, match="1 of 1") as caught:  # noqa: PT012
        async with running(supervised), Bus(settings=supervised.settings) as bus:
            await bus.publish(Event(type=project.kind, data={"n": 1}))
            await eventually(lambda: project.seen("begun"), within=WITHIN)
    assert caught.value.exit_code == 22


async def test_a_process_that_blocks_is_killed_at_last(project: Project, server: Server) -> None:
    """One that does not even hear the signal gets its drain time and a grace; a second stop does not wait."""
    project.write("note('begun'); time.sleep(60)")
    for stops in (1, 2):
        drain = 0.2 if stops == 1 else 30.0
        supervised = project.supervisor(url=server.url, prefix=unique("p"), drain_timeout=drain, grace=0.1)
        (project.folder / "seen").unlink(missing_ok=True)
        with pytest.raises(DrainTimeoutError):  # noqa: PT012
            async with running(supervised), Bus(settings=supervised.settings) as bus:
                await bus.publish(Event(type=project.kind, data={"n": 1}))
                await eventually(lambda: project.seen("begun"), within=WITHIN)
                for _ in range(stops):
                    supervised.stop()


async def test_a_reload_starts_again_with_the_code_as_it_is_now(project: Project) -> None:
    """New processes, new code, and nothing counted as a death."""
    project.write()
    supervised = project.supervisor()
    async with running(supervised):
        first = supervised.processes[0].pid
        project.write(text=WRITES + "note('new code')\n")
        supervised.reload()
        await eventually(lambda: project.seen("new code"), within=WITHIN)
        await eventually(
            lambda: (
                supervised.processes and supervised.processes[0].pid != first and supervised.processes[0].ready.is_set()
            ),
            within=WITHIN,
        )
        assert gone(first)


async def test_a_system_without_room_for_another_process_keeps_the_old_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A roll needs one more for a while; where it cannot be had, nothing is lost."""
    project.write()
    supervised = project.supervisor()
    with capture_logs() as logs:
        async with running(supervised):
            before = [process.pid for process in supervised.serving]
            with monkeypatch.context() as full:
                full.setattr(sys, "executable", "/no/such/python")
                supervised.reload()
                await eventually(lambda: any("could not be started" in line["event"] for line in logs), within=WITHIN)
            assert [process.pid for process in supervised.serving] == before


async def test_a_supervisor_that_is_cancelled_leaves_no_process(project: Project) -> None:
    """Nothing outlives it."""
    project.write()
    supervised = project.supervisor()
    async with running(supervised) as task:
        pid = supervised.processes[0].pid
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, WITHIN)
    assert gone(pid)


async def test_a_stop_before_the_modules_are_loaded_ends_at_once(project: Project) -> None:
    """An import that hangs does not hold up the end, and is no work that was cut off."""
    project.write(
        text="import time, pathlib\n(pathlib.Path({folder!r}) / 'seen').write_text('importing')\ntime.sleep(60)"
    )
    task = asyncio.create_task((supervised := project.supervisor()).run())
    await eventually(lambda: project.seen("importing"), within=WITHIN)
    supervised.stop()
    await asyncio.wait_for(task, WITHIN)


async def test_a_signal_stops_a_supervisor_and_ready_is_told(project: Project) -> None:
    """`run_until_signalled` is what `hyperbus run` does."""
    project.write()
    supervised = project.supervisor()
    told = asyncio.Event()
    task = asyncio.create_task(run_until_signalled(supervised, ready=told.set))
    await asyncio.wait_for(told.wait(), WITHIN)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(task, WITHIN)
