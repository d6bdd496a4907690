"""Runs the chaos suite: builds a world, breaks it for some minutes, lets it settle, and has it judged.

python -m tests.chaos.run --minutes 30 --seed 7
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.dump import dump, is_quiet
from tests.chaos.features import EVERY_GROUP, GROUPS, HANG_TIMEOUT, HANG_TRIES, ON, ROWS
from tests.chaos.schedule import FAULTS, Schedule
from tests.chaos.world import MAX_RSS, PREFIX, TTL, World
from tests.commands import ROOT
from tests.servers import server_binaries

MB = 1024 * 1024
#: A worker process takes this much at most, whatever happens.
RSS_LIMIT = 2 * MAX_RSS
#: What a server takes beside its streams, and what an event costs in a stream that nothing cuts.
USED_LIMIT = 64 * MB
EVENT_COST = 700
#: Faults after which a handler may still run whose entry nobody knows any more.
FORGETTING = ("flushall", "del", "group_destroy")
#: How long the world may take to become quiet once everything is healed.
SETTLE = 120.0


@dataclass
class Plan:
    """What is to be run."""

    minutes: float = 2.0
    seed: str = ""
    rate: float = 120.0
    server: str = "valkey-wheel"
    kinds: list[str] | None = None
    least: int = 1
    supervisors: int = 2
    processes: int = 2
    plant: str = ""
    settle: float = SETTLE
    pause: float = 2.0
    quiet: bool = False
    variables: dict[str, str] = field(default_factory=dict)


class Teller:
    """Prints lines with the time since the start."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._start = time.monotonic()

    def __call__(self, line: str) -> None:
        if not self._quiet:
            print(f"{time.monotonic() - self._start:7.1f}  {line}", flush=True)


async def run(plan: Plan, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a plan; return what the checker, a program of its own, said of it."""
    tell = Teller(plan.quiet)
    kinds = list(FAULTS) if plan.kinds is None else plan.kinds
    used = (
        USED_LIMIT if ON["retention"] else USED_LIMIT + int(plan.minutes * 60 * 2 + 240) * int(plan.rate) * EVENT_COST
    )
    manifest: dict[str, Any] = {
        "seed": plan.seed, "prefix": PREFIX, "ttl": TTL, "groups": GROUPS, "rows": ROWS,
        "thread_limits": {"threads": 4.0},
        "ordered": ["ordered"] if ON["order"] else [], "limits": {"rss": RSS_LIMIT, "used": used},
        "faults": dict.fromkeys(kinds, plan.least), "least_repeated": 1 if ON["once"] and "half_open" in kinds else 0,
        "least_events": int(plan.minutes * 60 * plan.rate * 0.05),
    }  # fmt: skip
    tell(f"seed {plan.seed}, {plan.server}, {plan.minutes:g} minutes, {plan.rate:g} events/s, in {folder}")
    tell(f"limits: worker RSS {RSS_LIMIT / 1e6:.0f} MB, used_memory {used / 1e6:.0f} MB")
    tell(f"off for now: {', '.join(name for name, there in ON.items() if not there) or 'nothing'}")
    world = World(
        folder, server_binaries()[plan.server], seed=plan.seed, rate=plan.rate, supervisors=plan.supervisors,
        processes=plan.processes, plant=plan.plant, variables=plan.variables,
    )  # fmt: skip
    async with world:
        tell(f"workers {world.workers()}, server {world.server.pid}, proxy port {world.proxy.port}")
        counts: Counter[str] = Counter()

        def note(kind: str) -> None:
            counts[kind] += 1
            tell(f"fault {sum(counts.values())}: {kind}")

        await asyncio.sleep(3)  # something to lose
        await Schedule(plan.seed, plan.minutes * 60, kinds=kinds, pause=plan.pause).run(world, note)
        await _settle(world, tell, plan.settle)
        manifest["exit_codes"] = [*manifest.get("exit_codes", []), *await world.stop_supervisors()]
        manifest["deaths"] = world.deaths()
        final = await asyncio.to_thread(dump, world.server.command, world.streams, EVERY_GROUP)
        (folder / "final.json").write_text(json.dumps(final))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return await asyncio.to_thread(judge, folder)


async def _settle(world: World, tell: Teller, seconds: float) -> None:
    """Heal everything, stop publishing, and wait until all is done that is going to be."""
    await world.proxy.heal()
    codes = await world.stop_producers()
    tell(f"producers ended with {codes}; waiting until everything is done")
    deadline, quiet = time.monotonic() + seconds, 0
    while quiet < 3:
        if time.monotonic() > deadline:
            tell(f"not quiet after {seconds:.0f} s")
            return
        quiet = quiet + 1 if await asyncio.to_thread(is_quiet, world.server.command, world.streams, EVERY_GROUP) else 0
        await asyncio.sleep(0.3)
    tell("quiet")
    await _outlast_hanging(world, tell)


async def _outlast_hanging(world: World, tell: Teller) -> None:
    """Wait until no handler can hang any more whose entry the server was told to forget: no drain waits for so long."""
    forgotten = [world.ended[kind] for kind in FORGETTING if kind in world.ended]
    if "poison_hang" in world.ended and forgotten:
        left = max(forgotten) + HANG_TRIES * HANG_TIMEOUT + 1 - time.monotonic()
        if left > 0:
            tell(f"waiting {left:.0f} s more for handlers that may hang")
            await asyncio.sleep(left)


def judge(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the checker, a program of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos.checker", str(folder), *options],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def main() -> int:
    """Read the command line, run, print the verdict, and return the exit code."""
    parser = argparse.ArgumentParser(description="Break everything for some minutes, and see whether anything is lost.")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", default=os.environ.get("CHAOS_SEED", ""))
    parser.add_argument("--rate", type=float, default=120.0, help="events a second")
    parser.add_argument(
        "--server", default=os.environ.get("CHAOS_SERVER", "valkey-wheel"), help="see HYPERBUS_TEST_SERVERS"
    )
    parser.add_argument("--faults", default="", help="only these, between commas")
    parser.add_argument("--plant", default="", help="a module that plants a bug")
    parser.add_argument("--keep", action="store_true", help="keep the histories of a run that went well, too")
    options = parser.parse_args()
    plan = Plan(
        minutes=options.minutes, seed=options.seed or str(random.randrange(10**6)), rate=options.rate,
        server=options.server, kinds=options.faults.split(",") if options.faults else None, plant=options.plant,
        least=max(1, int(options.minutes // 5)),
    )  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="hyperbus-chaos-"))
    judged = asyncio.run(run(plan, folder))
    print(judged.stdout + judged.stderr)
    if judged.returncode or options.keep:
        print(f"histories and logs are in {folder}; judge them again: python -m tests.chaos.checker {folder}")
    else:
        shutil.rmtree(folder)
    print(f"{'FAILED' if judged.returncode else 'passed'}: seed {plan.seed}")
    return judged.returncode


if __name__ == "__main__":
    sys.exit(main())
