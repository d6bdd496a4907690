"""Links that somebody planted in the folder of an embedded server are not followed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperbus import Bus, HyperbusError

CONTENT = b"worth keeping\n" * 200_000


def link(place: Path, victim: Path) -> None:
    place.symlink_to(victim)


def chain(place: Path, victim: Path) -> None:
    beside = place.with_name("another")
    beside.symlink_to(victim)
    place.symlink_to(beside)


@pytest.mark.parametrize("plant", [link, chain])
@pytest.mark.parametrize("size", [len(CONTENT), 14], ids=["large", "small"])
async def test_a_file_that_a_planted_log_leads_to_stays_as_it_is(
    tmp_path: Path, plant: Callable[[Path, Path], None], size: int
) -> None:
    """It is neither emptied nor written to, and the error names the link."""
    folder, victim = tmp_path / "shared", tmp_path / "victim"
    folder.mkdir()
    victim.write_bytes(CONTENT[:size])
    plant(folder / "server.log", victim)
    with pytest.raises(HyperbusError, match=r"server\.log.*link"):
        async with Bus(f"embedded://{folder}"):
            pass
    assert victim.read_bytes() == CONTENT[:size]


@pytest.mark.parametrize("name", ["users.lock", "start.lock", "keeper.lock"])
async def test_no_file_is_made_where_a_planted_lock_leads(tmp_path: Path, name: str) -> None:
    """Not even an empty one."""
    folder, target = tmp_path / "shared", tmp_path / "target"
    folder.mkdir()
    (folder / name).symlink_to(target)
    with pytest.raises(HyperbusError, match=rf"{name}.*link"):
        async with Bus(f"embedded://{folder}"):
            pass
    assert not target.exists()


async def test_a_pipe_in_place_of_the_log_holds_nobody_up(tmp_path: Path) -> None:
    """Opening one waits for its other end, for ever."""
    folder = tmp_path / "shared"
    folder.mkdir()
    os.mkfifo(folder / "server.log")
    with pytest.raises(HyperbusError, match=r"server\.log"):
        async with Bus(f"embedded://{folder}"):
            pass
