"""How much memory does a worker process of `hyperbus run` hold: idle, and with a long backlog before it?"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.bare import Bare, pack
from benchmarks.form import Depth
from benchmarks.measuring import ROOT
from benchmarks.question import Bar, Figure, Place, Question, Values
from benchmarks.workload import STREAM, fill
from hyperbus.supervisor.memory import rss_of

#: Entries in the backlog.
BACKLOG = 5_000_000
#: The least that it is looked at being worked off, in seconds.
SECONDS = 10.0
#: For how long a worker with nothing to do is looked at, in seconds.
IDLE_SECONDS = 1.0
_PAUSE = 0.05
_MODULE = """
from hyperbus import Event, EventData, consumer

class Benched(EventData, type="bench.event"):
    contract: str
    network: str
    step: int
    note: str

@consumer(group="bench")
async def handle(event: Event[Benched]) -> None:
    pass
"""


async def idle(place: Place) -> Values:
    """One worker process that has nothing to do."""
    await fill(place, 1)
    async with _running(place) as supervisor:
        await _wait_until_read(place, supervisor, left=0)
        return {"idle_worker": await _most_held(_worker_of(supervisor), IDLE_SECONDS)}


async def backlog(place: Place) -> Values:
    """The same, and one that works on a backlog."""
    before = (await idle(place))["idle_worker"]
    count = place.events(BACKLOG) if place.factor < 1 else BACKLOG
    await fill(place, count)
    async with _running(place) as supervisor:
        await _wait_until_read(place, supervisor, left=count - 1)
        held = await _most_held(_worker_of(supervisor), SECONDS * place.factor)
    return {"backlog": count, "backlog_memory": held - before}


@asynccontextmanager
async def _running(place: Place) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run `hyperbus run` with one worker process."""
    with tempfile.TemporaryDirectory(prefix="hyperbus-bench-") as folder:
        Path(folder, "benched.py").write_text(_MODULE)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HYPERBUS_")}
        environment |= {
            "HYPERBUS_URL": place.url,
            "HYPERBUS_HTTP_PORT": "0",
            "HYPERBUS_LOOP": place.loop,
            "HYPERBUS_LOG_LEVEL": "error",
            "PYTHONPATH": str(ROOT),
        }
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "hyperbus", "run", "benched", "--processes", "1"], cwd=folder, env=environment
        )
        try:
            yield supervisor
        finally:
            supervisor.terminate()
            supervisor.wait()


def _worker_of(supervisor: subprocess.Popen[bytes]) -> int:
    """Return the id of the one worker process."""
    (worker,) = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
    return int(worker)


async def _wait_until_read(place: Place, supervisor: subprocess.Popen[bytes], *, left: int) -> None:
    """Wait until the group has read all but `left` entries."""
    with Bare(place.host, place.port) as bare:
        while supervisor.poll() is None:
            (groups,) = bare.ask(pack("XINFO", "GROUPS", STREAM))
            for group in groups:
                facts = dict(zip(group[::2], group[1::2], strict=True))
                if facts[b"lag"] is not None and facts[b"lag"] <= left:
                    return
            await asyncio.sleep(_PAUSE)
    raise SystemExit(f"hyperbus run ended at once with exit code {supervisor.returncode}")


async def _most_held(pid: int, seconds: float) -> float:
    """Return the most megabytes that a process holds within some seconds."""
    most = 0
    for _ in range(int(seconds / _PAUSE)):
        most = max(most, rss_of(pid) or 0)
        await asyncio.sleep(_PAUSE)
    return most / 2**20


QUESTIONS = (
    Question(
        "idle_worker",
        idle,
        (Figure("idle_worker", "idle worker process", "MB", bars=(Bar(60, at_most=True),)),),
        Depth.QUICK,
        rounds=1,
    ),
    Question(
        "backlog",
        backlog,
        (
            Figure("backlog", "entries in the backlog", ""),
            Figure("backlog_memory", "beyond idle, with the backlog", "MB", bars=(Bar(20, at_most=True),)),
        ),
        rounds=1,
    ),
)
