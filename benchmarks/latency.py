"""How long an event takes from before its publish to the entry of its handler, at several rates.

Compared with the bare round of the same run: two processes and plain sockets, from before an XADD until the other
one, blocked in XREAD, has parsed it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import time
from multiprocessing.connection import Connection

from bare import Bare, pack
from server import server

from hyperbus import Bus, Event, EventData, consumer
from hyperbus.settings import Settings

#: Rates that are measured, in events a second.
RATES = (100, 1_000, 10_000)


class Stamped(EventData, type="bench.stamped"):
    """Carries the moment before it was published, in seconds of the monotonic clock, which all processes share."""

    at: float


def bare_rounds(host: str, port: int, count: int, pause: float) -> list[float]:
    """Return the seconds of `count` bare rounds, one every `pause` seconds."""
    ours, theirs = multiprocessing.Pipe()
    reading = multiprocessing.Process(target=_read_bare, args=(host, port, count, theirs))
    reading.start()
    ours.recv()
    bare = Bare(host, port)
    for _ in range(count):
        time.sleep(pause)
        bare.ask(pack("XADD", "bare:latency", "*", "at", repr(time.monotonic())))
    seconds: list[float] = ours.recv()
    reading.join()
    bare.close()
    return seconds


def _read_bare(host: str, port: int, count: int, report: Connection) -> None:
    bare = Bare(host, port)
    report.send(None)
    seconds: list[float] = []
    last = b"0"
    while len(seconds) < count:
        (answer,) = bare.ask(pack("XREAD", "COUNT", "100", "BLOCK", "5000", "STREAMS", "bare:latency", last))
        now = time.monotonic()
        for entry in answer[0][1]:
            last = entry[0]
            seconds.append(now - float(entry[1][1]))
    report.send(seconds)


def _consume(url: str, count: int, report: Connection) -> None:
    asyncio.run(_consume_until(url, count, report))


async def _consume_until(url: str, count: int, report: Connection) -> None:
    seconds: list[float] = []
    done = asyncio.Event()

    @consumer(group="latency")
    async def handle(event: Event[Stamped]) -> None:
        seconds.append(time.monotonic() - event.data.at)
        if len(seconds) == count:
            done.set()

    async with Bus(url, settings=Settings()) as bus, bus.running(handle):
        report.send(None)
        await done.wait()
    report.send(seconds)


async def bus_latency(url: str, rate: int, seconds: float) -> list[float]:
    """Return the latencies of events published at `rate`, handled in another process."""
    count = int(rate * seconds)
    ours, theirs = multiprocessing.Pipe()
    reading = multiprocessing.Process(target=_consume, args=(url, count, theirs))
    reading.start()
    await asyncio.to_thread(ours.recv)
    async with Bus(url, settings=Settings()) as bus, asyncio.TaskGroup() as tasks:
        started = time.monotonic()
        sent = 0
        while sent < count:
            due = min(count, int((time.monotonic() - started) * rate) + 1)
            for _ in range(due - sent):
                tasks.create_task(bus.publish(Stamped(at=time.monotonic())))
            sent = due
            await asyncio.sleep(1 / rate if rate < 1_000 else 0.0005)
    latencies: list[float] = await asyncio.to_thread(ours.recv)
    reading.join()
    return latencies


def _row(name: str, seconds: list[float]) -> dict[str, object]:
    ordered = sorted(seconds)
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {"question": name} | {
        label: ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 for label, share in shares.items()
    }


def main() -> None:
    """Measure and print; durations in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="seconds a rate")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with server() as (host, port):
        url = f"redis://{host}:{port}/0"
        bare = bare_rounds(host, port, int(100 * options.seconds), 0.01)
        rows.append(_row("bare round at 100/s", bare))
        for rate in RATES:
            print(f"measuring at {rate}/s", file=sys.stderr)
            latencies = asyncio.run(bus_latency(url, rate, options.seconds))
            rows.append(_row(f"hyperbus at {rate}/s", latencies))
            rows[-1]["p50 / bare p50"] = statistics.median(latencies) / statistics.median(bare)
            Bare(host, port).ask(b"FLUSHALL\r\n")
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            "  ".join(
                f"{key} {value:.3f}" if isinstance(value, float) else f"{value:<22}" for key, value in row.items()
            )
        )


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
