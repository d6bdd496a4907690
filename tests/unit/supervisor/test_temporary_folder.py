"""Folders that killed supervisors left are removed, and only those."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hyperbus.errors import HyperbusError
from hyperbus.supervisor import temporary_folder as module
from hyperbus.supervisor.temporary_folder import PREFIX, remove_abandoned, temporary_folder

#: Makes a folder in the one it is given, lets a process inherit its lock, and waits to be killed.
OWNER = """
import subprocess, sys, time
from pathlib import Path
from hyperbus.supervisor.temporary_folder import temporary_folder

with temporary_folder(Path(sys.argv[1])) as (path, lock):
    (path / "counter_1.db").write_bytes(b"x")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    print(child.pid, flush=True)
    time.sleep(60)
"""


def folders(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir())


def test_a_folder_goes_with_its_context(tmp_path: Path) -> None:
    """With what is in it, and nobody else removes it before."""
    with temporary_folder(tmp_path) as (path, _):
        (path / "counter_1.db").write_bytes(b"x")
        assert remove_abandoned(tmp_path) == 0
        assert path.stat().st_mode & 0o777 == 0o700
        assert (path / "counter_1.db").exists()
    assert folders(tmp_path) == []


def test_a_killed_owner_s_folder_is_removed_when_its_processes_are_gone_too(tmp_path: Path) -> None:
    """They still count in it while they drain."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    owner.stdout.close()
    inherited = os.pidfd_open(child)
    try:
        assert remove_abandoned(tmp_path) == 0
        # the child waits for its standard input, which ends with its parent: it is held first
        os.kill(child, signal.SIGSTOP)
        owner.kill()
        owner.wait()
        assert remove_abandoned(tmp_path) == 0
        assert len(folders(tmp_path)) == 1
        signal.pidfd_send_signal(inherited, signal.SIGKILL)
        poller = select.poll()
        poller.register(inherited)
        assert poller.poll(5000)
        assert remove_abandoned(tmp_path) == 1
        assert folders(tmp_path) == []
    finally:
        os.close(inherited)


def test_what_is_not_such_a_folder_is_left_alone(tmp_path: Path) -> None:
    """No link is followed, no other name is touched, nothing but plain files is removed."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (tmp_path / f"{PREFIX}link").symlink_to(precious)
    (tmp_path / f"{PREFIX}file").write_text("x")
    (tmp_path / f"{PREFIX}deep" / "inner").mkdir(parents=True)
    linked = tmp_path / f"{PREFIX}linked"
    linked.mkdir()
    (linked / "file").symlink_to(precious / "file")
    before = folders(tmp_path)
    assert remove_abandoned(tmp_path) == 1
    assert folders(tmp_path) == [name for name in before if name != linked.name]
    assert (precious / "file").read_text() == "x"
    assert remove_abandoned(tmp_path / "nowhere") == 0


def test_another_user_s_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where it could be removed, as root could."""
    (tmp_path / f"{PREFIX}theirs").mkdir()
    monkeypatch.setattr(module.os, "geteuid", lambda: os.getuid() + 1)
    assert remove_abandoned(tmp_path) == 0


def test_many_at_once_do_not_take_each_other_s(tmp_path: Path) -> None:
    """A folder that is not locked yet can be taken for an abandoned one: its maker notices, and makes another."""
    wrong: list[str] = []

    def start() -> None:
        for _ in range(60):
            remove_abandoned(tmp_path)
            with temporary_folder(tmp_path) as (path, _):
                remove_abandoned(tmp_path)
                try:
                    (path / "counter_1.db").write_bytes(b"x")
                except OSError as error:
                    wrong.append(repr(error))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert folders(tmp_path) == []


def test_a_place_that_takes_no_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not there, and one where each goes at once."""
    with pytest.raises(HyperbusError, match="TMPDIR"), temporary_folder(tmp_path / "nowhere"):
        pass
    monkeypatch.setattr(module, "_hold", lambda path: path.rmdir())
    with pytest.raises(HyperbusError, match="removes it at once"), temporary_folder(tmp_path):
        pass
