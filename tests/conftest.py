"""One server of each kind for the whole session; tests keep apart by the names they use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import Server, server_binaries


class SharedServers:
    """Servers that are started when first asked for."""

    def __init__(self) -> None:
        self._binaries = server_binaries()
        self._servers: dict[str, Server] = {}

    def get(self, name: str) -> Server:
        """Return the running server of this name."""
        if name not in self._servers:
            server = Server(self._binaries[name])
            self._servers[name] = server
            server.start()
        return self._servers[name]

    def remove(self) -> None:
        """End them all."""
        for server in self._servers.values():
            server.remove()


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[SharedServers]:
    servers = SharedServers()
    yield servers
    servers.remove()


@pytest.fixture(scope="session", params=list(server_binaries()))
def server(request: pytest.FixtureRequest, shared_servers: SharedServers) -> Server:
    """Each kind of server in turn; shared, so use names of your own."""
    return shared_servers.get(request.param)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run tests marked `one_server` on one kind of server: they take long, and the others would show nothing new."""
    binaries = list(server_binaries())
    chosen = "valkey-wheel" if "valkey-wheel" in binaries else binaries[0]
    left_out = [
        item
        for item in items
        if item.get_closest_marker("one_server") is not None
        and isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and item.callspec.params.get("server", chosen) != chosen
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
