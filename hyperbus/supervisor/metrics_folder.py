"""The files in which worker processes count, and their sum. Dead processes' files are folded into one of each kind."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.mmap_dict import MmapedDict

from hyperbus.logger import get_logger
from hyperbus.observability import exposition

#: What stands for a process id in the name of the file that holds the sums of dead processes.
_DEAD = "dead"
#: Kinds of metrics that are added up; a gauge says how something is now, and is nothing once its process is dead.
_SUMMED = ("counter", "histogram", "summary")


class MetricsFolder:
    """Adds up what the processes counted. What dead ones counted stays, their files do not."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._unfolded: set[int] = set()
        self._told = False
        self._log = get_logger("hyperbus.supervisor")
        self._lock = asyncio.Lock()  # a file and the sum that it was just added to are never seen together

    async def render(self, registry: CollectorRegistry) -> bytes:
        """Return `registry` and the sum of all processes in the Prometheus text format.

        Raises:
            HyperbusError: a file cannot be read.
        """
        async with self._lock:
            return await asyncio.to_thread(exposition.render, registry, multiprocess_dir=self.path)

    async def fold(self, pid: int) -> None:
        """Add what a dead process counted to the sum of dead ones, and remove its files.

        Where there is no room for the sum they stay, and are summed up as they are until there is.
        """
        async with self._lock:
            self._unfolded.add(pid)
            await asyncio.to_thread(self._fold_all)

    def _fold_all(self) -> None:
        for pid in sorted(self._unfolded):
            try:
                for file in self.path.glob(f"gauge_*_{pid}.db"):
                    file.unlink(missing_ok=True)
                for kind in _SUMMED:
                    self._fold(self.path / f"{kind}_{pid}.db", self.path / f"{kind}_{_DEAD}.db")
            except OSError as error:
                if not self._told:
                    self._log.warning("what dead processes counted cannot be summed up yet", error=str(error))
                self._told = True
            else:
                self._unfolded.discard(pid)
        self._told = self._told and bool(self._unfolded)

    def _fold(self, file: Path, total: Path) -> None:
        """Add a file's values to those of another, which is replaced at once or not at all.

        Files are read and written, and never mapped: a byte that the disk has no room for would end this process.

        Raises:
            OSError: there is no room for it, or for one more open file.
        """
        if not file.exists():
            return
        sums: dict[str, float] = {}
        try:
            for source in (total, file):
                if source.exists():
                    for key, value, *_ in MmapedDict.read_all_values_from_file(str(source)):  # type: ignore[no-untyped-call]
                        sums[key] = sums.get(key, 0.0) + value
        except (struct.error, RuntimeError, ValueError) as error:
            self._log.warning("what a dead process counted is lost", file=file.name, error=repr(error))
        else:
            fresh = self.path / f"{total.name}.new"
            try:
                fresh.write_bytes(_as_file(sums))
                fresh.replace(total)
            except OSError:
                with suppress(OSError):
                    fresh.unlink(missing_ok=True)
                raise
        file.unlink(missing_ok=True)


def _as_file(sums: Mapping[str, float]) -> bytes:
    """Return values in the form of the client library's files: each is its key's length, the key, the value, a time."""
    parts = []
    for key, value in sums.items():
        text = key.encode()
        padding = b" " * (8 - (len(text) + 4) % 8)
        parts.append(struct.pack("i", len(text)) + text + padding + struct.pack("dd", value, 0.0))
    content = b"".join(parts)
    return struct.pack("i4x", 8 + len(content)) + content
