"""Replacing processes under load: what is published meanwhile is handled once, and soon."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import statistics
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from hyperbus import Bus, Event
from hyperbus.settings import Settings
from tests.commands import Running, _status, command, environment, wait_for, write_modules
from tests.servers import Server
from tests.unit.runtime.running import unique

pytestmark = pytest.mark.one_server

LONG = bool(os.environ.get("HYPERBUS_TEST_LONG"))
PROCESSES = 4
#: Events a second, and how many of them at once.
RATE, BURST = 2_000, 20
#: The longest that an event may take from its publish to its handler, in seconds.
LONGEST = 0.5
HANDLES = """
import asyncio, os, time
from pathlib import Path
from hyperbus import Event, consumer

seen = os.open(Path(__file__).with_name("seen"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)

@consumer(group="g", types=[{kind!r}], concurrency=8)
async def handler(event: Event) -> None:
    took = time.time() - event.data["at"]
    await asyncio.sleep({wait})
    os.write(seen, b"%d %.6f %d\\n" % (event.data["n"], took, os.getpid()))
"""


def options(server: Server, *more: str) -> list[str]:
    return ["m", "--url", server.url, "--http-port", "0", *more]


def seen(folder: Path) -> list[tuple[int, float, int]]:
    lines = (folder / "seen").read_text().splitlines() if (folder / "seen").exists() else []
    return [(int(n), float(took), int(pid)) for n, took, pid in (line.split() for line in lines)]


async def produce(url: str, kind: str, until: asyncio.Event) -> int:
    """Publish at an even rate until told to stop; return how many events there were."""
    count, started = 0, time.monotonic()
    async with Bus(settings=Settings(url=url)) as bus:
        while not until.is_set():
            now = time.time()
            await bus.publish_many([Event(type=kind, data={"n": count + i, "at": now}) for i in range(BURST)])
            count += BURST
            await asyncio.sleep(max(0.0, started + count / RATE - time.monotonic()))
    return count


async def watch(url: str, until: asyncio.Event) -> Counter[int]:
    """Ask a page again and again; return how often it answered what."""
    answers: Counter[int] = Counter()
    while not until.is_set():
        answers[await asyncio.to_thread(_status, url)] += 1
        await asyncio.sleep(0.05)
    return answers


@pytest.mark.alone
@pytest.mark.second_try("how long an event waits is up to the machine, too")
@pytest.mark.parametrize("wait", [0, 0.01], ids=["quick", "busy"])
async def test_a_roll_under_load_keeps_events_waiting_for_less_than_half_a_second_and_repeats_none(
    server: Server, tmp_path: Path, wait: float
) -> None:
    """With handlers that are idle, and with such as have no slot to spare: those hand over what they had not begun.

    Every process is another one afterwards; the supervisor says at every moment that it is ready.
    """
    kind, over = unique(), asyncio.Event()
    write_modules(tmp_path, m=HANDLES.format(kind=kind, wait=wait))
    with Running("run", *options(server, "--processes", str(PROCESSES)), folder=tmp_path) as running:
        line = await asyncio.to_thread(running.wait_until_ready)
        before = set(running.workers())
        async with asyncio.TaskGroup() as tasks:
            producing = tasks.create_task(produce(server.url, kind, over))
            watching = tasks.create_task(watch(line["metrics"].replace("/metrics", "/readyz"), over))
            try:
                await asyncio.to_thread(wait_for, lambda: len(seen(tmp_path)) > RATE / 2)
                for _ in range(3 if LONG else 1):
                    rolls = len(running.log("every worker process was replaced"))
                    began = time.monotonic()
                    running.process.send_signal(signal.SIGHUP)
                    await asyncio.to_thread(
                        wait_for,
                        lambda rolls=rolls: len(running.log("every worker process was replaced")) > rolls,
                        lambda: running.err[-4000:],
                    )
                    roll = time.monotonic() - began
            finally:
                over.set()
        count, answers = producing.result(), watching.result()
        await asyncio.to_thread(
            wait_for, lambda: len(seen(tmp_path)) >= count, lambda: f"{len(seen(tmp_path))}/{count}"
        )
        after = set(running.workers())
        assert running.stop() == 0
    handled = seen(tmp_path)
    times = Counter(n for n, _, _ in handled)
    waits = sorted(took for _, took, _ in handled)
    print(
        f"\n{count} events, {len(times)} handled, median {statistics.median(waits) * 1000:.1f} ms, "
        f"p99 {waits[-len(waits) // 100] * 1000:.1f} ms, longest {waits[-1] * 1000:.0f} ms; readyz {dict(answers)}; "
        f"the roll took {roll:.1f} s"
    )
    assert set(times) == set(range(count))
    assert times.most_common(1)[0][1] == 1, "no event was handled twice"
    assert waits[-1] < max(LONGEST, roll / 5), "far less than the roll took, where the machine is busy"
    assert set(answers) == {200}
    assert len(after) == PROCESSES
    assert not before & after
    assert not running.log("worker process died")


async def test_new_code_that_cannot_run_replaces_nothing(server: Server, tmp_path: Path) -> None:
    """The old processes stay, every one; the log says why, and the next roll with sound code works."""
    kind = unique()
    write_modules(tmp_path, m=HANDLES.format(kind=kind, wait=0))
    with Running("run", *options(server, "--processes", "2"), folder=tmp_path) as running:
        line = running.wait_until_ready()
        before = set(running.workers())
        for broken, why in (("1 / 0", "exit code 1"), ("import os; os._exit(7)", "exit code 7")):
            write_modules(tmp_path, m=broken)
            running.process.send_signal(signal.SIGHUP)
            failed = wait_for(
                lambda why=why: [
                    said for said in running.log("a new worker process did not become ready: the old one goes on")
                    if said["reason"] == why
                ],
                lambda: running.err[-4000:],
            )  # fmt: skip
            assert len(failed) == 1, "the rest of the roll is left out"
            assert failed[0]["level"] == "error"
            wait_for(lambda: set(running.workers()) == before)
            assert _status(line["metrics"].replace("/metrics", "/readyz")) == 200
        write_modules(tmp_path, m=HANDLES.format(kind=kind, wait=0))
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: running.log("every worker process was replaced"), lambda: running.err[-4000:])
        assert not set(running.workers()) & before
        async with Bus(settings=Settings(url=server.url)) as bus:
            await bus.publish(Event(type=kind, data={"n": 1, "at": time.time()}))
        wait_for(lambda: seen(tmp_path))
        assert running.stop() == 0


async def test_a_stop_in_the_middle_of_a_roll_ends_both_processes(server: Server, tmp_path: Path) -> None:
    """The new one has just begun to load; nothing is left behind and nothing was cut off."""
    kind = unique()
    write_modules(tmp_path, m=HANDLES.format(kind=kind, wait=0))
    with Running("run", *options(server), folder=tmp_path) as running:
        running.wait_until_ready()
        write_modules(tmp_path, m="import time; time.sleep(60)")
        running.process.send_signal(signal.SIGHUP)
        both = wait_for(lambda: workers if len(workers := running.workers()) == 2 else None)
        assert running.stop() == 0
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in both))


@pytest.mark.parametrize("gone", [False, True])
def test_a_terminal_that_goes_away_is_no_wish_to_go_on(tmp_path: Path, gone: bool) -> None:
    """Its SIGHUP ends hyperbus; the same signal while the terminal is there replaces the processes."""
    write_modules(tmp_path, m=HANDLES.format(kind=unique(), wait=0))
    ours, theirs = pty.openpty()
    log = tmp_path / "log"
    with log.open("w") as err:
        process = subprocess.Popen(
            command("run", "m", "--url", "memory://", "--http-port", "0"), cwd=tmp_path, env=environment(),
            stdin=theirs, stdout=err, stderr=err, start_new_session=True,
        )  # fmt: skip
    os.close(theirs)
    try:
        address = wait_for(lambda: re.search(r"(http://[\d.:]+)/metrics", log.read_text()), log.read_text)[1]
        wait_for(lambda: _status(f"{address}/readyz") == 200)
        if gone:
            os.close(ours)
        process.send_signal(signal.SIGHUP)
        if gone:
            assert process.wait(20) == 0
        else:
            wait_for(lambda: "every worker process was replaced" in log.read_text(), log.read_text)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if not gone:
            os.close(ours)
