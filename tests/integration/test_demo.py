"""`hyperbus demo`, as a user starts it: on a terminal, in a pipe, on a server, and interrupted."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from tests.commands import DEADLINE, command, environment, hyperbus
from tests.servers import Server

pytestmark = pytest.mark.one_server

ESCAPE = b"\x1b["


def on_terminal(folder: Path, *arguments: str, **variables: str) -> tuple[int, bytes]:
    """Run a command on a terminal; return its exit code and all that it showed."""
    mine, its = pty.openpty()
    process = subprocess.Popen(
        command(*arguments), cwd=folder, env=environment(**{"TERM": "xterm-256color", "NO_COLOR": "", **variables}),
        stdin=its, stdout=its, stderr=its, start_new_session=True,
    )  # fmt: skip
    os.close(its)
    shown = b""
    until = time.monotonic() + DEADLINE
    try:
        while time.monotonic() < until:
            readable, _, _ = select.select([mine], [], [], 1)
            if readable:
                shown += os.read(mine, 65536)
    except OSError:
        pass  # the last process has let go of the terminal
    finally:
        os.close(mine)
        if process.poll() is None and time.monotonic() >= until:
            process.kill()
    return process.wait(DEADLINE), shown


def test_the_demo_counts_the_same_at_both_ends(tmp_path):
    """Without a terminal and as JSON: every published event is a row, is counted and was shown to the socket."""
    ended = hyperbus("demo", "--seconds", "4", "--rate", "500", "--json", folder=tmp_path)
    summary = json.loads(ended.out)
    assert ended.code == 0
    assert ended.err == ""
    assert summary["agrees"] is True
    assert summary["published"] > 1000
    assert summary["published"] == summary["rows"] == summary["counted"] == summary["received"]
    assert (summary["lost"], summary["pending"], summary["dead_letters"], summary["retries"]) == (0, 0, 0, 1)
    assert summary["p50"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.alone  # what comes late is not in what it shows of three seconds
def test_the_demo_draws_a_table_on_a_terminal(tmp_path):
    """The table is drawn over itself, has a row for each group, and ends in the summary."""
    code, shown = on_terminal(tmp_path, "demo", "--seconds", "6", "--rate", "200")  # until every group is at work
    assert code == 0
    assert ESCAPE in shown
    for word in ("db_writers", "metrics_collectors", "log_aggregators", "demo_reviewers", "p99", "Both ends agree"):
        assert word.encode() in shown


def test_a_dumb_terminal_gets_plain_lines(tmp_path):
    """No escape sequence is written where TERM says that nothing understands them."""
    code, shown = on_terminal(tmp_path, "demo", "--seconds", "3", "--rate", "100", TERM="dumb")
    assert code == 0
    assert ESCAPE not in shown
    assert b"published" in shown
    assert b"Both ends agree" in shown


def test_no_color_gets_plain_lines(tmp_path):
    """NO_COLOR on a terminal that could do more."""
    code, shown = on_terminal(tmp_path, "demo", "--seconds", "3", "--rate", "100", NO_COLOR="1")
    assert code == 0
    assert ESCAPE not in shown
    assert b"Both ends agree" in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_demo_with_its_summary(tmp_path, number):
    """It stops publishing, lets what is under way arrive, and counts; that is no failure."""
    process = subprocess.Popen(
        command("demo", "--rate", "200"), cwd=tmp_path, env=environment(), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "published" in line:  # it runs, and has shown itself once
            process.send_signal(number)
            break
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    assert err == ""
    assert "Both ends agree" in out


def test_the_demo_runs_on_a_server(tmp_path, server: Server):
    """On a server that others use it counts its own events only, and says which keys it leaves."""
    other = f"events:other_{uuid.uuid4().hex[:8]}"
    server.command("XADD", other, "*", "data", "mine")
    ended = hyperbus("demo", "--seconds", "2", "--rate", "300", "--url", server.url, folder=tmp_path)
    assert ended.code == 0, ended.err
    assert "Both ends agree" in ended.out
    (prefix,) = {word.strip("'*:") for word in ended.out.split() if word.startswith("'*demo-")}
    keys = [key.decode() for key in server.command("KEYS", f"*{prefix}:*")]
    assert len(keys) > 10
    assert server.command("XLEN", other) == 1
    assert server.command("XINFO", "GROUPS", other) == []
    server.command("DEL", other, *keys)


def test_the_producer_can_run_alone(tmp_path, server: Server):
    """`--only-producer` plays the agents for consumers that run elsewhere."""
    prefix = f"alone-{uuid.uuid4().hex[:8]}"
    ended = hyperbus(
        "demo", "--only-producer", "--seconds", "1", "--rate", "300", "--url", server.url,
        folder=tmp_path, variables={"HYPERBUS_PREFIX": prefix},
    )  # fmt: skip
    assert ended.code == 0, ended.err
    published = int(ended.out.split()[1].replace(",", ""))
    keys = server.command("KEYS", f"{prefix}:*")
    assert sum(server.command("XLEN", key) for key in keys) == published > 100
