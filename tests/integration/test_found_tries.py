"""A try is counted when a handler is begun, and nowhere else: what a dead worker held loses none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hyperbus import Backoff, Bus, Delivery, Event, consumer
from hyperbus.settings import Settings
from tests.commands import Running, wait_for, write_modules
from tests.recorder import eventually
from tests.servers import Server
from tests.unit.runtime.running import unique

pytestmark = pytest.mark.one_server

MODULE = """
import os
from pathlib import Path
from hyperbus import Backoff, Delivery, Event, consumer

calls = Path(__file__).with_name("calls")

@consumer(group="g", types=[{kind!r}], retry=Backoff(initial=0.01, tries=3))
async def handler(event: Event, delivery: Delivery) -> None:
    n, before = event.data["n"], calls.read_text().split() if calls.exists() else []
    with calls.open("a") as file:
        file.write(f"{{n}}:{{delivery.tries}}\\n")
    if n == 0:
        os._exit(9)
    if not any(call.startswith(f"{{n}}:") for call in before):
        raise ValueError("fails once")
"""


async def test_one_poison_costs_its_neighbours_no_try(server: Server, tmp_path: Path) -> None:
    """It kills four processes; three entries beside it fail once, and have two tries left."""
    kind = unique()
    write_modules(tmp_path, m=MODULE.format(kind=kind))
    async with Bus(settings=Settings(url=server.url, heartbeat_ttl=1)) as bus:
        await bus.publish_many([Event(type=kind, data={"n": n}) for n in range(4)])
        with Running("run", "m", "--url", server.url, "--http-port", "0", folder=tmp_path) as running:

            def settled() -> bool:
                (group,) = server.command("XINFO", "GROUPS", f"events:{kind}") or [None]
                return bool(group) and group[b"pending"] == 0 and group[b"lag"] == 0

            wait_for(settled, lambda: running.err[-4000:])
            running.stop()
        letters = [letter for _, letter in await bus.transport.streams.dead_letters(f"events:{kind}", "g")]
    assert [(letter.reason, b'"n":0' in letter.fields[1]) for letter in letters] == [("poison", True)]
    calls = (tmp_path / "calls").read_text().split()
    for n in (1, 2, 3):
        assert len([call for call in calls if call[0] == str(n)]) == 2


@pytest.mark.parametrize("batch", [None, 10])
async def test_what_was_held_by_one_that_died_has_all_its_tries(server: Server, batch: int | None) -> None:
    """What it was handed before is told all the same: it may have been begun."""
    kind, group, seen = unique(), unique(), list[Any]()
    options: dict[str, Any] = {"group": group, "types": [kind], "retry": Backoff(initial=0, tries=2)}
    if batch:

        @consumer(**options, batch=batch)
        async def many(events: list[Event], deliveries: list[Delivery]) -> list[Exception | None]:
            seen.extend((event.data["n"], one.tries) for event, one in zip(events, deliveries, strict=True))
            return [ValueError() if one.tries == 2 else None for one in deliveries]

    else:

        @consumer(**options)
        async def many(event: Event, delivery: Delivery) -> None:
            seen.append((event.data["n"], delivery.tries))
            if delivery.tries == 2:
                raise ValueError

    stream = f"events:{kind}"
    async with Bus(settings=Settings(url=server.url, heartbeat_ttl=0.3)) as bus:
        await bus.publish_many([Event(type=kind, data={"n": n}) for n in range(5)])
        server.command("XGROUP", "CREATE", stream, group, "0")
        server.command("XREADGROUP", "GROUP", group, "dead", "COUNT", 5, "STREAMS", stream, ">")
        async with bus.running(many):
            await eventually(lambda: len(seen) == 10, within=30)
            await eventually(lambda: server.command("XPENDING", stream, group)["pending"] == 0, within=30)
        assert await bus.transport.streams.dead_letters(stream, group) == []
    assert sorted(seen) == [(n, t) for n in range(5) for t in (2, 3)]
    left = [key for key in server.command("KEYS", "*") if f"{stream}}}:deaths".encode() in key]
    assert left == [], "nothing is remembered of what has ended"
