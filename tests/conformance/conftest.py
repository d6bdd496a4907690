"""Every claim of this folder runs on memory and on each server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conformance.harness import Harness, MemoryPlace, Place, ServerPlace
from tests.conftest import SharedServers
from tests.servers import server_binaries


@pytest.fixture(params=["memory", *server_binaries()])
def place(request: pytest.FixtureRequest, shared_servers: SharedServers) -> Place:
    return MemoryPlace() if request.param == "memory" else ServerPlace(shared_servers.get(request.param))


@pytest.fixture
async def harness(place: Place) -> AsyncIterator[Harness]:
    harness = Harness(place)
    await harness.transport.open()
    yield harness
    await harness.transport.close()
