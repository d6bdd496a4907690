"""One server of each kind for each process that runs tests; tests keep apart by the names they use.

Which tests run at all, and which of them in one process.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests import docker_engine, second_try
from tests.examples import register_profiles
from tests.servers import Server, server_binaries

register_profiles()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(second_try)


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


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what would show nothing new, keep together what shares something, and begin with what takes long."""
    functions = [item for item in items if isinstance(item, pytest.Function)]
    left_out = _left_out(functions)
    config.hook.pytest_deselected(items=left_out)
    items[:] = sorted((item for item in items if item not in left_out), key=_turn)
    for item in functions:
        if _shares_with_its_module(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _left_out(items: list[pytest.Function]) -> list[pytest.Item]:
    """Tests marked `one_server` run on one kind of server: they take long, and the others would show nothing new."""
    binaries = list(server_binaries())
    chosen = "valkey-wheel" if "valkey-wheel" in binaries else binaries[0]
    return [
        item
        for item in items
        if item.get_closest_marker("one_server") is not None
        and hasattr(item, "callspec")
        and item.callspec.params.get("server", chosen) != chosen
    ]


def _turn(item: pytest.Item) -> int:
    """Return when a test comes: processes that share the work end together when the longest tests come first."""
    if item.get_closest_marker("chaos") is not None:
        return 0
    if isinstance(item, pytest.Function) and _shares_with_its_module(item):
        return 1
    return 2 if item.path.parent.name == "integration" else 3


def _shares_with_its_module(item: pytest.Function) -> bool:
    """Tell whether a test has a fixture of its module, which each process that runs one of its tests would make again."""
    fixtures = item._fixtureinfo.name2fixturedefs.values()
    return any(definitions[-1].scope == "module" for definitions in fixtures)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let all tests that lack Docker be one line of the summary, which folds those that are skipped in one place."""
    report = yield
    if report.skipped and item.get_closest_marker("docker") is not None and isinstance(report.longrepr, tuple):
        report.longrepr = (docker_engine.__file__, 1, report.longrepr[2])
    return report
