"""The files in which a worker process counts. Prometheus' client maps them into memory, sparse; ours have every byte.

Writing to a mapped byte that the disk has no room for is no error that a program could meet, but its death (SIGBUS). So
room is taken before it is mapped, and where there is none, counting goes on in memory that nobody sums up.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

from hyperbus.logger import get_logger

#: How large a file is at first; it doubles when it is full.
_FIRST = 1 << 16
#: Before the first value: a number that says how much is used, and its padding.
_HEAD = 8


def count_in_safe_files() -> None:
    """Let every metric that is made from now on count in such files. To be called before there is one."""
    values.MmapedDict = CountsFile  # type: ignore[attr-defined, unused-ignore]


class CountsFile(MmapedDict):
    """A file of counts that never ends its process, nor fails the code that counts."""

    _f: Any
    _m: Any
    _capacity: int
    _used: int

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        self._is_file = True
        try:
            if not Path(filename).exists():
                _make(Path(filename))
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]
        except OSError as error:
            self._count_in_memory(filename, error)

    def _count_in_memory(self, filename: str, error: OSError) -> None:
        _tell(filename, error)
        self._is_file = False
        self._f, self._fname = True, filename  # what closing looks at
        self._m, self._capacity = mmap.mmap(-1, _FIRST), _FIRST
        self._positions: dict[str, int] = {}
        self._used = _HEAD
        self._m[:4] = struct.pack("i", self._used)

    def _init_value(self, key: str) -> None:
        """Make room for a value, and add it."""
        text = len(key.encode())
        while self._used + text + 32 > self._capacity:  # its length, padding, value and time
            self._grow()
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _grow(self) -> None:
        size = 2 * self._capacity
        larger = self._larger_file(size) if self._is_file else None
        if larger is None:
            self._is_file = False  # it stays as it is: what was counted until now is summed up, later counts are not
            larger = mmap.mmap(-1, size)
            larger[: self._used] = self._m[: self._used]
        self._m, self._capacity = larger, size

    def _larger_file(self, size: int) -> mmap.mmap | None:
        descriptor = self._f.fileno()
        try:
            os.lseek(descriptor, 0, os.SEEK_END)
            _write(descriptor, bytes(size - os.fstat(descriptor).st_size))
            return mmap.mmap(descriptor, size)
        except OSError as error:
            _tell(self._fname, error)
            return None

    def close(self) -> None:
        """Close it; twice is safe."""
        if self._f is True:
            self._f = None
            self._m.close()
        super().close()  # type: ignore[no-untyped-call]


def _make(path: Path) -> None:
    """Make a file of zeros, at once or not at all: whoever sums up reads all that are there."""
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        _write(descriptor, bytes(_FIRST))
        fresh.rename(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _tell(filename: str, error: OSError) -> None:
    get_logger("hyperbus.supervisor").warning(
        "this process has no room to count in: what it counts from now on is missing in /metrics until it is replaced",
        file=filename,
        error=str(error),
    )
