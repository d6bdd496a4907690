"""Lines are written by a thread: at once while they get through, later or not at all while they do not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from hyperbus.observability.log_writer import MOST_WAITING, LineWriter

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def lost(count: int) -> str:
    return f"lost {count}\n"


def test_a_line_is_written_when_write_returns(pipe: Pipe) -> None:
    """Whoever ends its process next has said it."""
    writer = LineWriter(pipe[1], lost)
    for number in range(50):
        assert writer.write(f"line {number}\n")
        assert os.read(pipe[0], 100) == f"line {number}\n".encode()


def test_a_full_pipe_holds_nobody_up_and_what_is_dropped_is_counted(pipe: Pipe) -> None:
    """And told before the next line that gets through."""
    writer = LineWriter(pipe[1], lost)
    line = "x" * 999 + "\n"
    started = time.monotonic()
    kept = sum(writer.write(line) for _ in range(2_000))
    assert time.monotonic() - started < 5
    assert MOST_WAITING // 1_000 - 1 <= kept < 1_000
    received = b""
    while len(received) < kept * 1_000:
        received += os.read(pipe[0], 65_536)
    assert writer.flush(10)
    assert writer.write("the last\n")
    assert writer.flush(10)
    received += os.read(pipe[0], 65_536)
    assert received == (line * kept + f"lost {2_000 - kept}\n" + "the last\n").encode(), "in its place"


def test_a_descriptor_that_does_not_wait_is_waited_for(pipe: Pipe) -> None:
    """Whoever shares it may have made it so."""
    os.set_blocking(pipe[1], False)
    writer = LineWriter(pipe[1], lost)
    for _ in range(100):
        assert writer.write("x" * 999 + "\n")
    received = b""
    while len(received) < 100_000:
        received += os.read(pipe[0], 65_536)
    assert received == ("x" * 999 + "\n").encode() * 100


def test_a_reader_that_went_away_costs_the_lines_and_nothing_else() -> None:
    """A closed pipe is no reason to stop."""
    reading, writing = os.pipe()
    os.close(reading)
    writer = LineWriter(writing, lost)
    for _ in range(10):
        writer.write("a line\n")
    assert writer.flush(10)
    os.close(writing)


def test_a_forked_process_writes_with_a_thread_of_its_own(pipe: Pipe) -> None:
    """It inherits no thread, and no lock that nobody would open."""
    writer = LineWriter(pipe[1], lost)
    writer.write("parent\n")
    pid = os.fork()
    if not pid:
        writer.write("child\n")
        os._exit(0 if writer.flush(5) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    writer.write("parent again\n")
    assert os.read(pipe[0], 1_000) == b"parent\nchild\nparent again\n"
