"""How much memory a process holds, and a bound on how fast it can take more."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

#: Beyond twice `max_rss`, what a process may reserve for its data: stacks of threads count, and are hardly ever used.
_ROOM = 2**30


def rss_of(pid: int) -> int | None:
    """Return how many bytes of memory a process holds; None where the system does not tell."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def own_rss() -> int:
    """Return how many bytes of memory this process holds; where the system does not tell, the most it ever held."""
    held = rss_of(os.getpid())
    if held is not None:
        return held
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def bound_allocations(max_rss: int | None) -> None:
    """Let allocations far beyond `max_rss` fail with MemoryError, in the handler that makes them.

    One huge allocation is faster than any look at what a process holds. RLIMIT_DATA and not RLIMIT_AS: that one
    counts files that are mapped, shared libraries and address space that allocators reserve and never touch, and
    would hit processes that hold little. Systems that do not count mapped memory as data have only the supervisor.
    """
    if max_rss is None:
        return
    most = 2 * max_rss + _ROOM
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with suppress(ValueError, OSError):  # a hard limit below it bounds just as well
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
