"""Limits of worker processes, with real ones: memory, deliveries, handlers that do not end, and what is left of the dead."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from hyperbus import Bus, Event
from hyperbus.supervisor.supervisor import Supervisor
from hyperbus.transport import record_names
from tests.integration.test_supervisor import WITHIN, WRITES, Project, get, running
from tests.recorder import eventually
from tests.servers import Server
from tests.unit.runtime.running import unique

pytestmark = pytest.mark.one_server

MB = 2**20
needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def supervisor(project: Project, server: Server, **settings: Any) -> Supervisor:
    """A supervisor whose processes may be replaced as soon as they live."""
    chosen = {"heartbeat_ttl": 1.0, **settings}
    return project.supervisor(url=server.url, prefix=unique("p"), least_life=0.0, **chosen)


def events(project: Project, *numbers: int) -> list[Event]:
    return [Event(type=project.kind, data={"n": n}) for n in numbers]


def handled(project: Project) -> list[int]:
    return [int(line.split()[1]) for line in project.seen("handled")]


def pids(supervised: Supervisor) -> list[int]:
    return [process.pid for process in supervised.serving]


@needs_proc
async def test_a_process_that_grows_is_replaced_and_its_events_are_handled_once(
    project: Project, server: Server
) -> None:
    """It drains: a leak costs nobody an event."""
    project.write("kept = globals().setdefault('kept', []); kept.append(b'x' * 2_000_000); await asyncio.sleep(0.1)")
    supervised = supervisor(project, server)
    async with running(supervised):
        room = max(process.vitals.rss for process in supervised.processes) + 40 * MB
    supervised = supervisor(project, server, max_rss=room)
    with capture_logs() as logs:
        async with running(supervised), Bus(settings=supervised.settings) as bus:
            (first,) = pids(supervised)
            await bus.publish_many(events(project, *range(40)))
            await eventually(lambda: len(handled(project)) == 40, within=2 * WITHIN)
            await eventually(lambda: pids(supervised) != [first], within=WITHIN)
    assert sorted(handled(project)) == list(range(40))
    assert any("max_rss" in line.get("reason", "") for line in logs if line["event"] == "worker process is replaced")
    assert any(line["event"] == "worker process replaced" for line in logs)
    assert not any(line["event"] == "worker process died" for line in logs)


@needs_proc
async def test_poison_that_eats_memory_is_killed_before_it_has_eaten_much(project: Project, server: Server) -> None:
    """It blocks the loop too, so that nobody inside could say so; it becomes a dead letter, its neighbours do not."""
    project.write(
        "while event.data['n'] == 5: globals().setdefault('k', []).append(b'x' * 10_000_000); time.sleep(0.02)"
    )
    supervised = supervisor(project, server, max_rss=200 * MB)
    with capture_logs() as logs:
        async with running(supervised), Bus(settings=supervised.settings) as bus:
            await bus.publish_many(events(project, *range(10)))
            stream = f"{supervised.settings.prefix}:{project.kind}"
            async with asyncio.timeout(2 * WITHIN):
                while not (letters := await bus.transport.streams.dead_letters(stream, project.group)):
                    await asyncio.sleep(0.05)
            await eventually(lambda: len(set(handled(project))) == 9, within=WITHIN)
    assert len(letters) == 1
    assert set(handled(project)) == set(range(10)) - {5}
    held = [
        re.search(r"it holds (\d+) MB", line["reason"]) for line in logs if line["event"] == "worker process killed"
    ]
    assert held
    assert all(found and 300 <= int(found[1]) < 700 for found in held), held


@needs_proc
async def test_one_huge_allocation_is_its_handlers_own_failure(project: Project, server: Server) -> None:
    """MemoryError, in the process that goes on living."""
    project.write("try: bytearray(8 * 2**30)\n    except MemoryError: note('refused')")
    supervised = supervisor(project, server, max_rss=200 * MB)
    async with running(supervised), Bus(settings=supervised.settings) as bus:
        before = pids(supervised)
        await bus.publish_many(events(project, 1))
        await eventually(lambda: handled(project) == [1], within=WITHIN)
        assert project.seen("refused")
        assert pids(supervised) == before


async def test_a_process_that_had_its_deliveries_is_replaced(project: Project, server: Server) -> None:
    """One after another; no event is handled twice or not at all."""
    project.write("await asyncio.sleep(0.01)")
    supervised = supervisor(project, server, max_deliveries=20)
    async with running(supervised), Bus(settings=supervised.settings) as bus:
        seen = set(pids(supervised))
        published = 0
        while len(seen) < 3:  # the next one needs deliveries of its own before it is replaced
            await bus.publish_many(events(project, *range(published, published + 25)))
            published += 25
            await eventually(lambda: len(handled(project)) >= published, within=WITHIN)  # noqa: B023 - awaited here
            seen.update(pids(supervised))
        assert sorted(handled(project)) == list(range(published))
        assert all(process.ready.is_set() for process in supervised.serving)


@pytest.mark.parametrize(
    "hangs",
    [
        "time.sleep(60)",
        pytest.param(
            "await asyncio.sleep(60)",
            marks=pytest.mark.skipif(not hasattr(Bus, "oldest_running"), reason="the bus does not tell"),
        ),
    ],
    ids=["blocking", "waiting"],
)
async def test_a_handler_that_never_ends_is_ended_with_its_process(
    project: Project, server: Server, hangs: str
) -> None:
    """Whether it blocks the loop or not; the next process goes on, and in the end the event is found out."""
    project.write(f"if event.data['n'] == 1:\n        {hangs}")
    supervised = supervisor(project, server, max_handler_seconds=0.5)
    with capture_logs() as logs:
        async with running(supervised), Bus(settings=supervised.settings) as bus:
            (first,) = pids(supervised)
            await bus.publish_many(events(project, *range(5)))
            await eventually(lambda: pids(supervised) not in ([], [first]), within=WITHIN)
            await eventually(lambda: set(handled(project)) == {0, 2, 3, 4}, within=2 * WITHIN)
            stream = f"{supervised.settings.prefix}:{project.kind}"
            async with asyncio.timeout(2 * WITHIN):
                while not (letters := await bus.transport.streams.dead_letters(stream, project.group)):
                    await asyncio.sleep(0.05)
    assert len(letters) == 1
    assert any("max_handler_seconds=0.5" in line["reason"] for line in logs if line["event"] == "worker process killed")


@pytest.mark.alone
async def test_a_loop_that_is_blocked_is_called_hung_and_left_alone(project: Project, server: Server) -> None:
    """For as long as nobody set a limit: the log and the page say so, the handler runs once, and all is well again."""
    project.write("note('begun'); time.sleep(3)")
    supervised = supervisor(project, server, hung_after=1.0, heartbeat_ttl=0.3)
    with capture_logs() as logs:
        async with running(supervised), Bus(settings=supervised.settings) as bus:
            before = pids(supervised)
            assert (await get(supervised.http_port, "/healthz"))[0] == 200
            await bus.publish_many(events(project, 1))
            await eventually(lambda: project.seen("begun"), within=WITHIN)
            await eventually(lambda: [line for line in logs if "hangs" in line["event"]], within=WITHIN)
            assert (await get(supervised.http_port, "/healthz"))[0] == 503
            await eventually(lambda: handled(project) == [1], within=WITHIN)
            await eventually(
                lambda: [line for line in logs if line["event"] == "worker process goes on"], within=WITHIN
            )
            assert (await get(supervised.http_port, "/healthz"))[0] == 200
            assert pids(supervised) == before
    assert len(project.seen("begun")) == 1
    assert len([line for line in logs if "hangs" in line["event"]]) == 1, "said once"


async def test_a_process_that_dies_of_its_first_event_is_buried(project: Project, server: Server) -> None:
    """Its heartbeat would go on for half a minute; it is gone as soon as the process is, however short its life was."""
    project.write(
        text=WRITES
        + """
from hyperbus import Delivery
@consumer(group="dies", types=[{kind!r}])
async def dies(event: Event, delivery: Delivery) -> None:
    if not (died := seen.with_name("died")).exists():
        died.touch()
        note(f"dying {{delivery.consumer}}")
        os._exit(9)
"""
    )
    supervised = supervisor(project, server, heartbeat_ttl=30.0)
    async with Bus(settings=supervised.settings) as bus:
        await bus.publish_many(events(project, *range(20)))  # it is handed them as soon as it reads
        async with running(supervised):
            await eventually(lambda: project.seen("dying"), within=WITHIN)
            dead = project.seen("dying")[0].split()[1]

            def successor() -> list[str]:
                workers = [worker for process in supervised.serving for worker in process.workers]
                return (
                    []
                    if dead in workers or len(workers) != 2
                    else [record_names.heartbeat(worker) for worker in workers]
                )

            await eventually(successor, within=WITHIN)
            assert await bus.transport.records.get([record_names.heartbeat(dead)]) == [None]
            assert None not in await bus.transport.records.get(successor())


async def test_what_dead_processes_counted_stays_and_their_files_do_not(project: Project, server: Server) -> None:
    """Sums never fall, and the folder does not grow with each restart."""
    project.write("if event.data['n'] % 10 == 9: asyncio.get_running_loop().call_later(0.3, os._exit, 3)")
    supervised = supervisor(project, server)

    async def acked() -> float:
        _, page = await get(supervised.http_port, "/metrics")
        found = re.search(r'^hyperbus_deliveries_total\{.*outcome="acked".*\} ([\d.e+]+)$', page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async with running(supervised), Bus(settings=supervised.settings) as bus:
        for life in range(3):
            before = pids(supervised)
            await bus.publish_many(events(project, *range(10 * life, 10 * life + 10)))
            await eventually(lambda before=before: pids(supervised) not in ([], before), within=WITHIN)
            await eventually(supervised.serving[0].ready.is_set, within=WITHIN)
            assert await acked() == 10 * (life + 1)
        files = {file.name for file in supervised._launchers[-1]._metrics.path.iterdir()}
        of_the_living = {file for file in files if str(pids(supervised)[0]) in file}
        assert files - of_the_living == {"counter_dead.db", "histogram_dead.db"}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_processes_run_on_the_loop_that_was_chosen(project: Project, loop: str) -> None:
    """And the log says which one that is."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    project.write(
        text=WRITES
        + """
@consumer(types=["never"])
class Tells(Consumer):
    async def start(self):
        note(f"loop {{type(asyncio.get_running_loop()).__module__}}")
    async def handle(self, event: Event) -> None: ...
"""
    )
    with capture_logs() as logs:
        async with running(project.supervisor(loop=loop)):
            pass
    assert [line["loop"] for line in logs if line["event"] == "supervising"] == [loop]
    assert [loop in line for line in project.seen("loop")] == [True]
