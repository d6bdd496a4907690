"""How many files a process may have open, and how many of them may be other people's connections."""

from __future__ import annotations

import resource

_MOST_RESERVED = 256
_LEAST_RESERVED = 64


def open_files() -> tuple[int, int]:
    """Return how many files this process may have open, and how many of them are kept from clients.

    A process that has none left can neither connect nor say that it lives. A quarter is kept: 64 at least, 256 at most,
    and half of them where there are few.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        limit = 2**31
    return limit, min(_MOST_RESERVED, max(limit // 4, min(_LEAST_RESERVED, limit // 2)))
