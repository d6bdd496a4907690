"""What dead processes counted stays; their files do not."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from hyperbus.supervisor.metrics_folder import MetricsFolder

COUNTS = """
import os
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from hyperbus.observability.histogram import BatchHistogram
Counter("done", "What was done.", ["kind"]).labels("a").inc(3)
Histogram("took", "How long.", buckets=(1, 2)).observe(1.5)
BatchHistogram("waited_seconds", "How long.", ("group",), (1, 2), REGISTRY).observe_many(("g",), (0.5, 1.5))
Gauge("level", "How high.").set(7)
print(os.getpid())
"""


async def counted(folder: Path) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", COUNTS,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    return int(out)


def sums(page: bytes) -> dict[str, float]:
    lines = [line for line in page.decode().splitlines() if re.match("done|took|waited", line)]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def test_many_restarts_leave_few_files_and_every_count(tmp_path: Path) -> None:
    """Folding changes no sum; after it there is one file of a kind, however many processes there were."""
    metrics = MetricsFolder(tmp_path)
    for number in range(1, 4):
        pid = await counted(tmp_path)
        before = sums(await metrics.render(CollectorRegistry()))
        await metrics.fold(pid)
        after = sums(await metrics.render(CollectorRegistry()))
        assert after == before
        assert after['done_total{kind="a"}'] == 3 * number
        assert after["took_count"] == number
        assert after['waited_seconds_bucket{group="g",le="1.0"}'] == number
        assert after['waited_seconds_bucket{group="g",le="2.0"}'] == 2 * number
        assert sorted(file.name for file in tmp_path.iterdir()) == ["counter_dead.db", "histogram_dead.db"]


async def test_a_damaged_file_of_a_dead_process_is_left_out(tmp_path: Path) -> None:
    """It spoils neither the page nor the counts of others."""
    metrics = MetricsFolder(tmp_path)
    await metrics.fold(await counted(tmp_path))
    (tmp_path / "counter_99.db").write_bytes(b"\x00\x10\x00\x00\x00\x00\x00\x00\xff\xff\xff\x7f")
    await metrics.fold(99)
    assert sums(await metrics.render(CollectorRegistry()))['done_total{kind="a"}'] == 3
    assert not (tmp_path / "counter_99.db").exists()


async def test_a_process_that_counted_nothing_is_no_trouble(tmp_path: Path) -> None:
    """Nothing is made of nothing."""
    await MetricsFolder(tmp_path).fold(1)
    assert list(tmp_path.iterdir()) == []
