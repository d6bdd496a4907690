"""The scripts, as far as they can be looked at without a server."""

from __future__ import annotations

import re
from pathlib import Path

import hyperbus.transports.redis
from hyperbus.transports.redis.protocol.commands import PIECE_BYTES, PIECE_ENTRIES
from hyperbus.transports.redis.script import Script

ROOT = Path(__file__).parents[4]


def test_every_script_says_whether_it_may_be_run_again() -> None:
    """And no line is about a script that there is not."""
    listed = re.findall(r"`(\w+\.lua)`", (ROOT / "docs" / "repeatable-commands.md").read_text())
    scripts = Path(hyperbus.transports.redis.__file__).with_name("scripts").glob("*.lua")
    assert sorted(listed) == sorted(script.name for script in scripts)


def test_calls_are_cut_by_number_and_by_bytes_and_each_piece_brings_the_script() -> None:
    """A server that forgot its scripts between two pieces understands the second one."""
    script = Script("append_once")
    many = list(script.pack_pieces((("a", "b"), ("1", b"data", b"x")) for _ in range(PIECE_ENTRIES + 1)))
    assert [count for _, count in many] == [PIECE_ENTRIES, 1]
    large = list(script.pack_pieces([(("a", "b"), ("1", b"data", b"x" * PIECE_BYTES))] * 2))
    assert [count for _, count in large] == [1, 1]
    assert all(packed.startswith(b"*8\r\n$4\r\nEVAL\r\n") for packed, _ in (*many, *large))
    assert list(script.pack_pieces([])) == []
