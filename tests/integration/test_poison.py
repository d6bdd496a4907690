"""An event that ends its process is found out, and only that one: with real processes under a supervisor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hyperbus import Bus, Event
from hyperbus.settings import Settings
from tests.commands import Running, wait_for, write_modules
from tests.servers import Server
from tests.unit.runtime.running import unique

pytestmark = pytest.mark.one_server

EVENTS = 500
POISON = 250
SINGLE = """
import os
from pathlib import Path
from hyperbus import Event, consumer

done = os.open(Path(__file__).with_name("done"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)

@consumer(group="g", types=[{kind!r}], concurrency=16)
async def handler(event: Event) -> None:
    if event.data["n"] in {poisons!r}:
        os._exit(9)
    os.write(done, b"%d\\n" % event.data["n"])
"""
BATCH = """
import os
from pathlib import Path
from hyperbus import Event, consumer

done = os.open(Path(__file__).with_name("done"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)

@consumer(group="g", types=[{kind!r}], batch=100)
async def handler(events: list[Event]) -> None:
    for event in events:
        if event.data["n"] in {poisons!r}:
            os._exit(9)
    os.write(done, b"".join(b"%d\\n" % event.data["n"] for event in events))
"""

ORDERED = SINGLE.replace("concurrency=16", 'concurrency=16, order_by="data.key"')


def settled(server: Server, kind: str) -> Callable[[], bool]:
    """Tell whether everything was delivered and nothing is pending."""

    def look() -> bool:
        (group,) = server.command("XINFO", "GROUPS", f"events:{kind}") or [None]
        return bool(group) and group[b"pending"] == 0 and group[b"lag"] == 0

    return look


@pytest.mark.parametrize("text", [SINGLE, BATCH, ORDERED], ids=["single", "batch", "ordered"])
async def test_one_exiting_poison_among_500_is_the_only_dead_letter(server: Server, tmp_path: Path, text: str) -> None:
    """All others are handled, whatever had been prefetched beside it, and the supervisor lives on."""
    kind = unique()
    write_modules(tmp_path, m=text.format(kind=kind, poisons={POISON}))
    async with Bus(settings=Settings(url=server.url)) as bus:
        await bus.publish_many([Event(type=kind, data={"key": n % 40, "n": n}) for n in range(EVENTS)])
        options = ("--processes", "2", "--url", server.url, "--http-port", "0")
        with Running("run", "m", *options, folder=tmp_path) as running:
            running.wait_until_ready()
            wait_for(settled(server, kind), lambda: running.err[-4000:])
            assert running.process.poll() is None
            assert running.stop() == 0
        ((_, letter),) = await bus.transport.streams.dead_letters(f"events:{kind}", "g")
    assert letter.reason == "poison"
    assert b'"n":250}' in letter.fields[1]
    done = set(map(int, (tmp_path / "done").read_text().split()))
    assert done == set(range(EVENTS)) - {POISON}
    deaths = running.log("worker process died")
    assert 2 <= len(deaths) <= 5, deaths
