"""A supervisor's folder for files that its processes share, and the removal of those that killed supervisors left.

It is known to have an owner by a lock on the folder itself, which ends with the last process of its supervisor: a
process id could be another one's by now, or one of another container.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from hyperbus.errors import HyperbusError

PREFIX = "hyperbus-metrics-"
_TRIES = 20
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def temporary_folder(parent: Path | None = None) -> Generator[tuple[Path, int]]:
    """Yield a new folder, and the descriptor that holds its lock: processes that inherit it hold it as well.

    Raises:
        HyperbusError: there is no place for it.
    """
    path, descriptor = _make(parent)
    try:
        yield path, descriptor
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def remove_abandoned(parent: Path | None = None) -> int:
    """Remove this user's folders whose owners were killed; return how many."""
    removed = 0
    with suppress(OSError):  # there may be no folder at all that takes a file
        parent = parent or Path(tempfile.gettempdir())
        for path in list(parent.glob(f"{PREFIX}*")):
            removed += _remove_if_abandoned(path)
    return removed


def _make(parent: Path | None) -> tuple[Path, int]:
    for _ in range(_TRIES):
        try:
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError as error:
            raise HyperbusError(f"a temporary folder cannot be made: {error}; see TMPDIR") from error
        descriptor = _hold(path)
        if descriptor is not None:
            return path, descriptor
    raise HyperbusError("a temporary folder cannot be kept: something removes it at once; see TMPDIR")


def _hold(path: Path) -> int | None:
    """Lock a new folder. None when another supervisor took it for an abandoned one before that."""
    try:
        descriptor = os.open(path, _OPEN)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = path.exists()
    except BlockingIOError:
        held = False
    except OSError:
        held = True  # a file system without locks: there nobody removes anything either
    if held:
        return descriptor
    os.close(descriptor)
    return None


def _remove_if_abandoned(path: Path) -> bool:
    try:
        descriptor = os.open(path, _OPEN)  # no link is followed, and what is no folder is left alone
    except OSError:
        return False
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with os.scandir(descriptor) as entries:
            for entry in entries:
                os.unlink(entry.name, dir_fd=descriptor)
        path.rmdir()
    except OSError:
        return False  # it has an owner, or holds what no supervisor puts there
    else:
        return True
    finally:
        os.close(descriptor)
