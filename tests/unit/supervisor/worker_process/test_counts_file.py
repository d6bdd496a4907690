"""Files that processes count in: what they hold, however large they become, and what happens where they cannot."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict
from structlog.testing import capture_logs

from hyperbus.supervisor.worker_process import counts_file as module
from hyperbus.supervisor.worker_process.counts_file import CountsFile

KEYS = [f"{n} {'x' * 100}" for n in range(3_000)]  # far more than fits a new file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "counter_1.db"


def held(file: Path) -> dict[str, float]:
    return {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(str(file))}


def count(counts: CountsFile, keys: list[str]) -> None:
    for n, key in enumerate(keys):
        counts.write_value(key, counts.read_value(key)[0] + n, 0.0)


def full(_descriptor: int, _content: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_holds_what_was_counted_however_large_it_becomes(file: Path) -> None:
    """It is opened again with all of it, and no byte of it is missing on the disk."""
    counts = CountsFile(str(file))
    assert held(file) == {}
    count(counts, KEYS)
    assert held(file) == {key: n for n, key in enumerate(KEYS)}
    counts.close()
    counts.close()
    again = CountsFile(str(file))
    count(again, KEYS)
    assert held(file) == {key: 2 * n for n, key in enumerate(KEYS)}
    again.close()
    assert os.stat(file).st_blocks * 512 >= os.stat(file).st_size


def test_where_no_file_can_be_made_none_is_left_and_counting_goes_on(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file would spoil the sum of all."""
    monkeypatch.setattr(module.os, "write", full)
    with capture_logs() as logs:
        counts = CountsFile(str(file))
        count(counts, KEYS)
    assert counts.read_value(KEYS[-1])[0] == len(KEYS) - 1
    counts.close()
    assert list(file.parent.iterdir()) == []
    assert len(logs) == 1


def test_a_file_that_cannot_grow_keeps_what_it_holds_and_counting_goes_on(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later counts are missing in it; none that is in it changes any more."""
    counts = CountsFile(str(file))
    count(counts, KEYS[:10])
    monkeypatch.setattr(module.os, "write", full)
    with capture_logs() as logs:
        count(counts, KEYS)
    assert counts.read_value(KEYS[9])[0] == 18
    assert counts.read_value(KEYS[-1])[0] == len(KEYS) - 1
    counts.close()
    found = held(file)
    assert found[KEYS[9]] in (9, 18)
    assert 10 <= len(found) < len(KEYS)
    assert len(logs) == 1
