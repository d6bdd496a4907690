"""An entry for whose sake a process ends in good order is found out as one that crashes it; and what is none goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyperbus import Bus, Event
from hyperbus.settings import Settings
from tests.commands import Running, wait_for, write_modules
from tests.servers import Server
from tests.unit.runtime.running import unique

pytestmark = pytest.mark.one_server

MODULE = """
import asyncio, os, sys
from pathlib import Path
from hyperbus import Backoff, Event, EventData, consumer

done = os.open(Path(__file__).with_name("done"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)

class Panic(BaseException):
    pass

class Unprintable(Exception):
    def __str__(self):
        raise sys.exit(1)
    __repr__ = __str__

async def leaves():
    sys.exit(0)

async def ends(how):
    if how == "exit 0":
        os._exit(0)
    elif how == "task":
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(leaves())
            await asyncio.sleep(60)
    elif how == "loop":
        asyncio.get_running_loop().stop()
        await asyncio.sleep(60)
    elif how == "callback":
        asyncio.get_running_loop().call_soon(sys.exit, 3)
        await asyncio.sleep(60)
    elif how == "sys.exit":
        sys.exit("for one event")
    elif how == "panic":
        raise Panic
    elif how == "interrupt":
        raise KeyboardInterrupt
    elif how == "unprintable":
        raise Unprintable

@consumer(group="g", types=[{kind!r}], concurrency=4, retry=Backoff(initial=0.01, tries=2))
async def handler(event: Event) -> None:
    await ends(event.data["how"])
    os.write(done, b"%d\\n" % event.data["n"])
"""
RAISES = ["sys.exit", "panic", "interrupt", "unprintable"]
#: What ends a process in good order; all of them in the long form of the test.
ENDS = ["task", "exit 0", "loop", "callback"] if os.environ.get("HYPERBUS_TEST_LONG") else ["task"]


async def run_with(server: Server, folder: Path, hows: list[str], good: int) -> tuple[dict[str, str], list[str]]:
    """Run events among which some are evil; return the reason of the dead letter of each, and how processes died."""
    kind = unique()
    write_modules(folder, m=MODULE.format(kind=kind))
    events = [Event(type=kind, data={"n": n, "how": ""}) for n in range(good)]
    for index, how in enumerate(hows):
        events.insert((index + 1) * good // (len(hows) + 1), Event(type=kind, data={"n": -1, "how": how}))
    async with Bus(settings=Settings(url=server.url)) as bus:
        await bus.publish_many(events)
        with Running("run", "m", "--processes", "2", "--url", server.url, "--http-port", "0", folder=folder) as running:
            running.wait_until_ready()

            def settled() -> bool:
                (group,) = server.command("XINFO", "GROUPS", f"events:{kind}") or [None]
                return bool(group) and group[b"pending"] == 0 and group[b"lag"] == 0

            wait_for(settled, lambda: running.err[-4000:])
            assert running.process.poll() is None
            assert running.stop() == 0
            deaths = running.log("worker process died")
        letters = [letter for _, letter in await bus.transport.streams.dead_letters(f"events:{kind}", "g")]
    done = list(map(int, (folder / "done").read_text().split()))
    assert set(done) == set(range(good))
    found = {how: letter.reason for letter in letters for how in hows if f'"{how}"'.encode() in letter.fields[1]}
    assert len(letters) == len(found)
    return found, [str(death) for death in deaths]


async def test_no_process_ends_for_what_a_handler_raises(server: Server, tmp_path: Path) -> None:
    """Each is tried as often as its policy allows, and is a dead letter then."""
    found, deaths = await run_with(server, tmp_path, RAISES, 40)
    assert found == dict.fromkeys(RAISES, "exhausted")
    assert deaths == []


@pytest.mark.parametrize("hows", [[how] for how in ENDS], ids=lambda hows: hows[0])
async def test_a_process_that_ends_in_good_order_because_of_an_entry_finds_it_out(
    server: Server, tmp_path: Path, hows: list[str]
) -> None:
    """By a task beside the handler, a callback, or the loop itself; the supervisor lives on."""
    found, deaths = await run_with(server, tmp_path, hows, 40)
    assert found == dict.fromkeys(hows, "poison")
    assert 3 <= len(deaths) <= 5 * len(hows)
