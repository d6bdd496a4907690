"""The bus works on servers as their makers ship them, in containers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis

from hyperbus import Bus, Event, EventData, consumer
from tests.docker_engine import require_docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]


class Counted(EventData, type="containers.counted"):
    """An event of these tests."""

    number: int


@pytest.fixture(scope="module", params=["redis:8-alpine", "redis:7-alpine", "valkey/valkey:8-alpine"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    require_docker()
    # Its reaper is one more image to pull, for containers that this fixture removes itself.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    container_module = pytest.importorskip("testcontainers.core.container")
    with container_module.DockerContainer(request.param).with_exposed_ports(6379) as container:
        host, port = container.get_container_host_ip(), int(container.get_exposed_port(6379))
        wait_until_it_answers(host, port)
        yield f"redis://{host}:{port}/0"


def wait_until_it_answers(host: str, port: int) -> None:
    deadline = time.monotonic() + 60
    with redis.Redis(host=host, port=port) as client:
        while True:
            try:
                client.ping()
                return
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


async def test_what_is_published_to_a_container_is_handled_once(url: str) -> None:
    """A hundred events make the round trip, each handled exactly once, and none stays pending."""
    group = f"group_{uuid4().hex}"
    numbers: list[int] = []
    done = asyncio.Event()

    @consumer(group=group)
    async def count(event: Event[Counted]) -> None:
        numbers.append(event.data.number)
        if len(numbers) >= 100:
            done.set()

    async with Bus(url, prefix=f"test-{uuid4().hex}") as bus:
        async with bus.running(count):
            ids = await bus.publish_many([Event(data=Counted(number=number)) for number in range(100)])
            await asyncio.wait_for(done.wait(), 20)
        infos = await bus.transport.streams.info([f"{bus.prefix}:containers.counted"])
    assert len(set(ids)) == 100
    assert sorted(numbers) == list(range(100))
    assert [(found.group, found.pending) for info in infos if info for found in info.groups] == [(group, 0)]
