"""What a process holds, and what it may take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyperbus.supervisor import memory

MB = 2**20


def test_a_process_that_grows_is_seen_to_grow() -> None:
    """From outside and from inside alike; one that has gone holds nothing that is known."""
    before = memory.own_rss()
    block = bytearray(64 * MB)
    assert memory.own_rss() - before > 60 * MB
    assert memory.rss_of(os.getpid()) == pytest.approx(memory.own_rss(), rel=0.1)
    assert memory.rss_of(2**22 + 1) is None
    del block


def test_where_nobody_tells_the_most_it_ever_held_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without /proc is replaced too early rather than never."""
    monkeypatch.setattr(memory, "rss_of", lambda _: None)
    assert memory.own_rss() > 10 * MB


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux counts mapped memory as data")
def test_a_huge_allocation_fails_and_the_process_goes_on() -> None:
    """It is the handler's MemoryError; what is within reason, threads and their stacks, is not."""
    program = (
        "import threading\n"
        "from hyperbus.supervisor.memory import bound_allocations\n"
        "bound_allocations(64 * 2**20)\n"
        "stop = threading.Event()\n"
        "threads = [threading.Thread(target=stop.wait) for _ in range(64)]\n"
        "[thread.start() for thread in threads]\n"
        "try:\n    bytearray(8 * 2**30)\nexcept MemoryError:\n    print('refused', len(bytearray(64 * 2**20)))\n"
        "stop.set()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused", str(64 * MB)]
