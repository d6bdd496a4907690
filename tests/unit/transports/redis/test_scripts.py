"""Every script has its line in the table of what may be run again."""

from __future__ import annotations

import re
from pathlib import Path

import hyperbus.transports.redis

ROOT = Path(__file__).parents[4]


def test_every_script_says_whether_it_may_be_run_again() -> None:
    """And no line is about a script that there is not."""
    listed = re.findall(r"`(\w+\.lua)`", (ROOT / "docs" / "repeatable-commands.md").read_text())
    scripts = Path(hyperbus.transports.redis.__file__).with_name("scripts").glob("*.lua")
    assert sorted(listed) == sorted(script.name for script in scripts)
