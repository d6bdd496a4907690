"""What the figures come from: a figure without its machine says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import hyperbus
from benchmarks.bare import Bare
from benchmarks.question import Place


def describe(place: Place) -> dict[str, str]:
    """Return facts about machine, server and software."""
    return {
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "server": _server(place),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "loop": f"uvloop {version('uvloop')}" if place.loop == "uvloop" else "asyncio",
        "hyperbus": hyperbus.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def line(facts: dict[str, str]) -> str:
    """Return the facts in one line."""
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['server']} beside it, {facts['python']}, "
        f"{facts['loop']}, {facts['date']}"
    )


def _cpu() -> str:
    if sys.platform == "darwin":
        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    try:
        facts = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        facts = []
    names = [fact.partition(":")[2].strip() for fact in facts if fact.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def _server(place: Place) -> str:
    with Bare(place.host, place.port) as bare:
        (answer,) = bare.ask(b"INFO server\r\n")
    facts = dict(fact.split(":", 1) for fact in answer.decode().splitlines() if ":" in fact)
    if "valkey_version" in facts:
        return f"Valkey {facts['valkey_version']}"
    return f"Redis {facts['redis_version']}"
