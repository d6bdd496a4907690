"""The stack of docker-compose.yml comes up, is scraped, fills the dashboard, and drains when it is stopped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from tests.docker_engine import require_docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "grafana/dashboards/hyperbus.json").read_text())
EXPRESSIONS = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]
#: What Grafana puts in for a scrape interval of 5 s.
RATE_INTERVAL = "20s"
SERVICES = ("redis", "supervisor", "producer", "prometheus")


def until(what: Callable[[], Any], seconds: float) -> Any:
    """Return what `what` returns as soon as it is true; the last answer after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := what()) and time.monotonic() < deadline:
        time.sleep(0.25)
    return answer


class Stack:
    """A project of its own, on free ports, with an image of its own."""

    def __init__(self) -> None:
        self.project = f"hyperbus-test-{uuid4().hex[:8]}"
        self.image = f"hyperbus:{self.project}"
        ports = ("REDIS_PORT", "HYPERBUS_HTTP_PORT", "HYPERBUS_WEBSOCKET_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "HYPERBUS_"))}
        self._environment = kept | dict.fromkeys(ports, "0") | {"HYPERBUS_IMAGE": self.image}
        for variable, default in re.findall(r"\$\{(\w+_IMAGE):-(.+?)\}", (ROOT / "docker-compose.yml").read_text()):
            self._environment.setdefault(variable, self._image_at_hand(default))

    def compose(self, *arguments: str) -> str:
        return self._docker("compose", "--project-name", self.project, "--project-directory", str(ROOT), *arguments)

    def address(self, service: str, port: int) -> str:
        return self.compose("port", service, str(port)).strip()

    def container(self, service: str) -> dict[str, Any]:
        name = self.compose("ps", "--all", "--quiet", service).strip()
        return json.loads(self._docker("inspect", name))[0]

    def prometheus(self, path: str, **parameters: str) -> Any:
        url = f"http://{self.address('prometheus', 9090)}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from None

    def remove(self) -> None:
        self.compose("--profile", "grafana", "down", "--volumes", "--timeout", "20")
        self._docker("image", "rm", "--force", self.image)

    def _image_at_hand(self, name: str) -> str:
        """Return an image, or what an engine that cannot pull it has under its name."""
        short = name.partition("@")[0]
        for known in (name, short, f"{short.rpartition(':')[0]}:latest"):
            if subprocess.run(["docker", "image", "inspect", known], capture_output=True, check=False).returncode == 0:
                return known
        return name

    def _docker(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments], env=self._environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    require_docker("compose", "version")
    stack = Stack()
    try:
        stack.compose("build", "supervisor")
        stack.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120")
        yield stack
    finally:
        stack.remove()


def test_every_service_runs_and_those_with_a_check_are_healthy(stack: Stack) -> None:
    """Redis and the supervisor are healthy by checks that ask them; nothing has been restarted."""
    containers = {service: stack.container(service) for service in SERVICES}
    assert {service: found["State"]["Status"] for service, found in containers.items()} == dict.fromkeys(
        SERVICES, "running"
    )
    assert [containers[service]["State"]["Health"]["Status"] for service in ("redis", "supervisor")] == ["healthy"] * 2
    assert {service: found["RestartCount"] for service, found in containers.items()} == dict.fromkeys(SERVICES, 0)


def test_every_port_is_published_on_this_machine_only(stack: Stack) -> None:
    """The servers ask for no password, so no other machine may reach them."""
    config = json.loads(stack.compose("--profile", "grafana", "config", "--format", "json"))
    published = [port["host_ip"] for service in config["services"].values() for port in service.get("ports", ())]
    assert len(published) == 5
    assert set(published) == {"127.0.0.1"}


def test_containers_of_ours_run_as_an_ordinary_user(stack: Stack) -> None:
    """Neither the supervisor nor the producer is root."""
    for service in ("supervisor", "producer"):
        assert stack.compose("exec", "--no-TTY", service, "id", "-u").strip() == "10001"


def test_prometheus_scrapes_the_supervisor(stack: Stack) -> None:
    """The only target is up: /metrics answers a request for the host name `supervisor`."""

    def up() -> Any:
        targets = stack.prometheus("targets")["activeTargets"]
        return targets if [target["health"] for target in targets] == ["up"] else None

    assert until(up, 60), stack.prometheus("targets")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_of_the_dashboard_returns_data(stack: Stack, expression: str) -> None:
    """No panel is empty, whether or not anything has gone wrong yet; values that are not numbers are no data."""
    query = expression.replace("$__rate_interval", RATE_INTERVAL)
    assert "$" not in query

    def values() -> list[float]:
        found = [float(row["value"][1]) for row in stack.prometheus("query", query=query)["result"]]
        return [value for value in found if value == value]  # noqa: PLR0124 - NaN

    assert until(values, 90), query


def test_events_are_flowing(stack: Stack) -> None:
    """Each group handles what the producer publishes, and nothing became a dead letter."""
    groups = {"db_writers", "log_aggregators", "metrics_collectors", "websocket"}
    query = f'sum by (group) (rate(hyperbus_deliveries_total{{outcome="acked"}}[{RATE_INTERVAL}])) > 10'

    def flowing() -> bool:
        return {row["metric"]["group"] for row in stack.prometheus("query", query=query)["result"]} == groups

    assert until(flowing, 60), stack.prometheus("query", query=query)
    assert not stack.prometheus("query", query="hyperbus_dead_letters_total")["result"]


def test_a_stopped_supervisor_drains_and_ends_with_code_0(stack: Stack) -> None:
    """`docker stop` under load leaves nothing pending, and once started again it catches up."""
    host, port = stack.address("redis", 6379).split(":")
    with redis.Redis(host=host, port=int(port), decode_responses=True) as client:
        stack.compose("stop", "supervisor")
        assert stack.container("supervisor")["State"]["ExitCode"] == 0
        assert [group["pending"] for group in groups_of(client)] == [0] * len(groups_of(client))
        before = sum(group["entries-read"] for group in groups_of(client))
        assert before > 0
        stack.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120", "supervisor")
        stack.compose("stop", "producer")
        assert stack.container("producer")["State"]["ExitCode"] == 0
        assert until(lambda: all(group["lag"] == group["pending"] == 0 for group in groups_of(client)), 30)
        assert sum(group["entries-read"] for group in groups_of(client)) > before


def groups_of(client: redis.Redis) -> list[dict[str, Any]]:
    streams = list(client.scan_iter("events:*", _type="stream"))
    return [group for stream in streams for group in client.xinfo_groups(stream)]
