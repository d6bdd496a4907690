"""Evil events of every kind among good ones, with the ready-made consumers: each ends as it should, and harms no other."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from hyperbus import Bus, Event
from hyperbus.settings import Settings
from tests.commands import Running, wait_for, write_modules
from tests.servers import Server
from tests.unit.runtime.running import body, unique

pytestmark = [pytest.mark.one_server, pytest.mark.alone, pytest.mark.timeout(400)]

SECONDS = int(os.environ.get("HYPERBUS_TEST_EVIL_SECONDS", "3"))
#: Good events a second; one of each evil kind comes each second, and one that ends its process each twenty.
RATE = 500
MODULE = """
import os, sys, time
from pathlib import Path
from hyperbus import Backoff, Event, consumer

done = os.open(Path(__file__).with_name("done"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)

class Panic(BaseException):
    pass

class Unprintable(Exception):
    def __str__(self):
        return None

@consumer(group="evil", types=["*"], concurrency=8, retry=Backoff(initial=0.05, tries=2))
async def evil(event: Event) -> None:
    how = event.data.get("how")
    if how == "panic":
        raise Panic
    if how == "sys.exit":
        sys.exit(1)
    if how == "unprintable":
        raise Unprintable
    if how == "os._exit":
        os._exit(0)
    if "n" in event.data:
        os.write(done, b"%d:%.3f\\n" % (event.data["n"], time.time() - event.timestamp.timestamp()))
"""
RAISING = ["panic", "sys.exit", "unprintable"]
READY_MADE = ["db_writers", "metrics_collectors", "log_aggregators"]


def broken(kind: str, number: int) -> list[list[bytes]]:
    """Return the fields of entries that are no events, each in another way."""
    return [
        [b"data", b"\xff\xfe"],
        [b"data", b"[" * 5_000],
        [b"data", body(number, kind).replace(b'"data":{', b'"data":[{') + b"]"],
        [b"data", body(number, "payment.completed")],
        [b"data", body(number, kind, timestamp=5)],
        [b"\xff", body(number, kind)],
        [part for n in range(5_000) for part in (b"f%d" % n, b"x")],
    ]


async def test_evil_events_harm_no_others(server: Server, tmp_path: Path) -> None:
    """No good event is lost, dead-lettered or late; `hyperbus run` lives on, and its processes stay small."""
    prefix, kind = unique("p"), "shop.sold"
    stream = f"{prefix}:{kind}"
    write_modules(tmp_path, m=MODULE)
    settings = {"HYPERBUS_PREFIX": prefix, "HYPERBUS_DATABASE_URL": f"sqlite:///{tmp_path}/rows.db"}
    command = ("run", "consumers", "m", "--processes", "2", "--url", server.url, "--http-port", "0")
    with Running(*command, "--websocket-port", "0", folder=tmp_path, variables=settings) as running:
        running.wait_until_ready()
        async with Bus(settings=Settings(url=server.url, prefix=prefix)) as bus:
            expected: Counter[str] = Counter()
            good, bad, began = 0, 0, time.monotonic()
            for second in range(SECONDS):
                for how in [*RAISING, *(["os._exit"] if second % 20 == 0 else [])]:
                    await bus.publish(Event(type=kind, data={"how": how}))
                    expected["poison" if how == "os._exit" else "exhausted"] += 1
                for fields in broken(kind, second):
                    server.command("XADD", stream, "*", *fields)
                    bad += 1
                odd = body(-1, kind, timestamp="0001-01-01T00:00:00"), body(-2, kind, more="x" * 2 * 1024 * 1024)
                for entry in odd:
                    server.command("XADD", stream, "*", "data", entry)
                for part in range(10):
                    events = [Event(type=kind, data={"n": good + n}) for n in range(RATE // 10)]
                    await bus.publish_many(events)
                    good += len(events)
                    await asyncio.sleep(max(0.0, began + second + (part + 1) / 10 - time.monotonic()))

            def settled() -> bool:
                groups = server.command("XINFO", "GROUPS", stream) or []
                return len(groups) == 1 + len(READY_MADE) and all(g[b"pending"] == 0 == g[b"lag"] for g in groups)

            await asyncio.to_thread(wait_for, settled, lambda: running.err[-4000:])
            assert running.process.poll() is None
            sizes = [_rss(pid) for pid in _children(running.process.pid)]
            letters = {
                group: [letter for _, letter in await bus.transport.streams.dead_letters(stream, group, count=10_000)]
                for group in ("evil", *READY_MADE)
            }
        assert running.stop() == 0
    expected["undecodable"] = bad
    assert Counter(letter.reason for letter in letters["evil"]) == expected
    for group in READY_MADE:
        assert Counter(letter.reason for letter in letters[group]) == {"undecodable": bad}
    late = dict(line.split(":") for line in (tmp_path / "done").read_text().split())
    assert {int(n) for n in late if int(n) >= 0} == set(range(good))
    ages = sorted(float(age) for n, age in late.items() if int(n) >= 0)
    print(f"good {good}, late: median {ages[len(ages) // 2]:.3f} s, 99 % {ages[len(ages) * 99 // 100]:.3f} s, most {ages[-1]:.3f} s; "
          f"MB {[size >> 20 for size in sizes]}")  # fmt: skip
    assert ages[len(ages) // 2] < 1
    assert ages[-1] < 15, (
        "an entry that was with a process that died may wait for its claim, and a suspect for its turn"
    )
    assert max(sizes) < 150 << 20


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
