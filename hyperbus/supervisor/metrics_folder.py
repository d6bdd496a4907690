"""The files in which worker processes count, and their sum. Dead processes' files are folded into one of each kind."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.mmap_dict import MmapedDict

from hyperbus.observability import exposition

#: What stands for a process id in the name of the file that holds the sums of dead processes.
_DEAD = "dead"
#: Kinds of metrics that are added up; a gauge says how something is now, and is nothing once its process is dead.
_SUMMED = ("counter", "histogram", "summary")


class MetricsFolder:
    """Adds up what the processes counted. What dead ones counted stays, their files do not."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._lock = asyncio.Lock()  # a file and the sum that it was just added to are never seen together

    async def render(self, registry: CollectorRegistry) -> bytes:
        """Return `registry` and the sum of all processes in the Prometheus text format.

        Raises:
            HyperbusError: a file cannot be read.
        """
        async with self._lock:
            return await asyncio.to_thread(exposition.render, registry, multiprocess_dir=self.path)

    async def fold(self, pid: int) -> None:
        """Add what a dead process counted to the sum of dead ones, and remove its files."""
        async with self._lock:
            await asyncio.to_thread(self._fold, pid)

    def _fold(self, pid: int) -> None:
        for kind in _SUMMED:
            file = self.path / f"{kind}_{pid}.db"
            if file.exists():
                try:
                    self._add(file, self.path / f"{kind}_{_DEAD}.db")
                except (OSError, struct.error, RuntimeError, ValueError) as error:
                    structlog.get_logger("hyperbus.supervisor").warning(
                        "what a dead process counted is lost", pid=pid, error=repr(error)
                    )
                file.unlink(missing_ok=True)
        for file in self.path.glob(f"gauge_*_{pid}.db"):
            file.unlink(missing_ok=True)

    def _add(self, file: Path, total: Path) -> None:
        """Add a file's values to those of another, which is replaced at once or not at all."""
        sums: dict[str, float] = {}
        for source in (total, file):
            if source.exists():
                for key, value, *_ in MmapedDict.read_all_values_from_file(str(source)):  # type: ignore[no-untyped-call]
                    sums[key] = sums.get(key, 0.0) + value
        fresh = self.path / f"{total.name}.new"
        fresh.unlink(missing_ok=True)
        values = MmapedDict(str(fresh))  # type: ignore[no-untyped-call]
        try:
            for key, value in sums.items():
                values.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
        finally:
            values.close()  # type: ignore[no-untyped-call]
        fresh.replace(total)
