"""No room for the files in which processes count: nobody dies of it, and events go on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperbus import Bus, Event
from tests.commands import UNCOVERED, Running, wait_for, write_modules
from tests.servers import Server

pytestmark = pytest.mark.one_server

MODULE = """
import resource
from pathlib import Path
from prometheus_client import Counter
from hyperbus import Event, consumer

{first}
SEEN = Counter("seen", "Events.", ["name"])

@consumer(group="{kind}", types=["{kind}"], concurrency=8)
async def handler(event: Event) -> None:
    for n in range({labels}):
        SEEN.labels(f"{{event.data['name']}} {{n}} {{'x' * 100}}").inc()
    with Path({seen!r}).open("a") as file:
        file.write(event.data["name"] + "\\n")
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave no byte."""
    with (folder / "filling").open("wb", buffering=0) as file:
        for size in (65_536, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError:
                    break


class App:
    """A program of one consumer, whose handler counts under many names."""

    def __init__(self, folder: Path, server: Server, kind: str, *, labels: int, first: str = "") -> None:
        self._seen = folder / "seen"
        self._kind, self._url = kind, server.url
        write_modules(folder, counting=MODULE.format(kind=kind, seen=str(self._seen), labels=labels, first=first))
        self.variables = {"HYPERBUS_URL": server.url, "HYPERBUS_HTTP_PORT": "0", "HYPERBUS_LOG_FORMAT": "json"}

    def has_handled(self, name: str) -> bool:
        return self._seen.exists() and name in self._seen.read_text().split()

    def handles(self, *names: str) -> None:
        """Publish events, and wait until they are handled."""
        asyncio.run(self._publish(names))
        wait_for(lambda: all(map(self.has_handled, names)))

    async def _publish(self, names: tuple[str, ...]) -> None:
        async with Bus(self._url) as bus:
            await bus.publish_many([Event(type=self._kind, data={"name": name}) for name in names])


def counted(supervising: dict[str, Any]) -> float:
    """Return how many names were counted, as `/metrics` says."""
    with urllib.request.urlopen(supervising["metrics"], timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("seen_total{"))


def test_a_full_temporary_folder_and_a_dead_worker_process_end_nothing(
    server: Server, tmp_path: Path, small: Path
) -> None:
    """The supervisor lives, so does the other process; the next one takes events too, and no count falls."""
    app = App(tmp_path, server, "full.killed", labels=10)
    with Running(
        "run", "counting", "--processes", "2", folder=tmp_path, variables={**app.variables, "TMPDIR": str(small)}
    ) as running:
        supervising = running.wait_until_ready()
        app.handles("a", "b")
        wait_for(lambda: counted(supervising) == 20)
        dead, alive = running.workers()
        fill(small)
        os.kill(dead, signal.SIGKILL)
        wait_for(lambda: running.process.poll() is not None or (dead not in running.workers() and running.is_ready()))
        assert running.process.poll() is None, running.err
        assert alive in running.workers()
        assert counted(supervising) == 20
        app.handles(*(f"later{n}" for n in range(20)))
        assert counted(supervising) >= 20
        assert len(running.log("worker process died")) == 1
        # with room again, what the dead one counted is summed up once more
        (small / "filling").unlink()
        os.kill(alive, signal.SIGKILL)
        wait_for(lambda: alive not in running.workers() and running.is_ready())
        assert counted(supervising) >= 20
        assert running.stop() == 0


def test_counting_more_than_a_full_disk_takes_ends_no_process(server: Server, tmp_path: Path, small: Path) -> None:
    """A handler goes on; what it counts meanwhile is missing in the sum, and that is said."""
    app = App(tmp_path, server, "full.counting", labels=2_000)
    with Running("run", "counting", folder=tmp_path, variables={**app.variables, "TMPDIR": str(small)}) as running:
        running.wait_until_ready()
        workers = running.workers()
        fill(small)
        app.handles("a", "b")
        assert running.workers() == workers
        assert "no room" in running.err
        assert running.stop() == 0


def test_a_limit_on_the_size_of_files_fails_no_handler(server: Server, tmp_path: Path) -> None:
    """`ulimit -f`, as a full disk: counting is not what a handler fails of."""
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))"
    app = App(tmp_path, server, "full.limited", labels=2_000, first=limit)
    with Running("run", "counting", folder=tmp_path, variables={**app.variables, **UNCOVERED}) as running:
        running.wait_until_ready()
        app.handles("a", "b")
        assert running.stop() == 0
