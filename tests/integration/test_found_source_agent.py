"""Found by use: events that handlers publish under `hyperbus run` did not say who published them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hyperbus import Bus, Event
from hyperbus.settings import Settings
from tests.commands import Running, hyperbus, wait_for
from tests.servers import Server

pytestmark = pytest.mark.one_server

APP = """
from hyperbus import Delivery, Event, EventData, consumer

class Answered(EventData, type="KIND.answered"):
    pass

class Passed(EventData, type="KIND.passed"):
    pass

@consumer(group="g", types=["KIND.asked"])
async def answer(event: Event, delivery: Delivery) -> None:
    await delivery.publish(Answered())
    await delivery.publish(Event(data=Passed(), source_agent="somebody else"))
"""


def published(server: Server, event_type: str) -> list[dict[str, Any]]:
    entries: Any = server.command("XRANGE", f"events:{event_type}", "-", "+")
    return [json.loads(fields[b"data"] if isinstance(fields, dict) else fields[1]) for _, fields in entries]


@pytest.mark.parametrize("how", ["default", "variable", "option", "project"])
def test_what_handlers_publish_says_who_did(server: Server, tmp_path: Path, how: str) -> None:
    """The first module's package, unless a setting says otherwise; what an event says itself wins."""
    kind = f"found.agent_{how}"
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").touch()
    (tmp_path / "shop/consumers.py").write_text(APP.replace("KIND", kind))
    variables = {"HYPERBUS_URL": server.url, "HYPERBUS_HTTP_PORT": "0"}
    options: list[str] = []
    if how == "variable":
        variables["HYPERBUS_SOURCE_AGENT"] = "clerk"
    elif how == "option":
        options = ["--source-agent", "clerk"]
    elif how == "project":
        (tmp_path / "pyproject.toml").write_text('[tool.hyperbus]\nsource_agent = "clerk"\n')
    with Running("run", "shop.consumers", *options, folder=tmp_path, variables=variables) as running:
        running.wait_until_ready()
        hyperbus("publish", f"{kind}.asked", "{}", folder=tmp_path, variables=variables)
        wait_for(lambda: published(server, f"{kind}.passed"), lambda: running.err)
    (answered,) = published(server, f"{kind}.answered")
    assert answered["source_agent"] == ("shop" if how == "default" else "clerk")
    (passed,) = published(server, f"{kind}.passed")
    assert passed["source_agent"] == "somebody else"
    (asked,) = published(server, f"{kind}.asked")
    assert asked["source_agent"] == ("clerk" if how in ("variable", "project") else "cli")


async def test_a_bus_of_ones_own_takes_the_setting_too() -> None:
    """What is given in code wins."""
    for given, expected in (({}, "clerk"), ({"source_agent": "me"}, "me")):
        async with Bus("memory://", settings=Settings(source_agent="clerk"), **given) as bus:  # type: ignore[arg-type]
            await bus.publish(Event(type="found.agent", data={}))
            await bus.publish_many([Event(type="found.agent", data={})])
            seen = []
            async for event in bus.read("found.agent"):
                seen.append(event.source_agent)
                if len(seen) == 2:
                    break
        assert seen == [expected, expected]
