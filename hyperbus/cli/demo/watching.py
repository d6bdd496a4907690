"""What the demo sees of the bus from outside: its metrics, its socket, its database, its streams."""

from __future__ import annotations

import asyncio
import sqlite3
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from hyperbus.clock import Seconds
from hyperbus.errors import HyperbusError
from hyperbus.transport import StreamInfo, Transport

_LATENCY = "hyperbus_latency_seconds"


@dataclass(frozen=True, slots=True)
class Seen:
    """What `/metrics` says: all processes added up."""

    counted: int = 0
    retries: int = 0
    handled: dict[str, int] = field(default_factory=dict)
    #: For each group, how many events were handled within each bound, in seconds.
    latency: dict[str, dict[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Groups:
    """The state of the groups, summed over streams. A lag that the server does not know counts as none."""

    lag: dict[str, int]
    pending: dict[str, int]
    dead_letters: int

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do."""
        return bool(self.lag) and not any(self.lag.values()) and not any(self.pending.values())


async def fetch_metrics(port: int) -> Seen:
    """Ask the supervisor's `/metrics`."""
    try:
        text = await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/metrics")
    except OSError:
        return Seen()
    return read_metrics(text_string_to_metric_families(text))


def read_metrics(families: Iterable[Metric]) -> Seen:
    """Return what the demo shows of the metrics."""
    counted = retries = 0.0
    handled: dict[str, int] = {}
    latency: dict[str, dict[float, float]] = {}
    for family in families:
        for sample in family.samples:
            group = sample.labels.get("group", "")
            if sample.name == "hyperbus_events_total":
                counted += sample.value
            elif sample.name == "hyperbus_retries_total":
                retries += sample.value
            elif sample.name == "hyperbus_deliveries_total" and sample.labels["outcome"] == "acked":
                handled[group] = handled.get(group, 0) + int(sample.value)
            elif sample.name == f"{_LATENCY}_bucket":
                latency.setdefault(group, {})[float(sample.labels["le"])] = sample.value
    return Seen(int(counted), int(retries), handled, latency)


def quantile(buckets: dict[float, float], share: float) -> Seconds | None:
    """Return the value under which `share` of the observed ones lie (linear within a bucket); None without any."""
    ordered = sorted(buckets.items())
    total = ordered[-1][1] if ordered else 0.0
    if not total:
        return None
    below, lower = 0.0, 0.0
    for bound, count in ordered:
        if count >= share * total:
            if bound == float("inf"):
                return lower
            within = (share * total - below) / (count - below) if count > below else 1.0
            return lower + (bound - lower) * within
        below, lower = count, bound
    return lower


def together(latency: Iterable[dict[float, float]]) -> dict[float, float]:
    """Return the buckets of several groups added up."""
    total: dict[float, float] = {}
    for buckets in latency:
        for bound, count in buckets.items():
            total[bound] = total.get(bound, 0.0) + count
    return total


async def look_at_groups(transport: Transport, prefix: str) -> Groups:
    """Ask the server for the state of every group."""
    names = await transport.streams.scan(f"{prefix}:*")
    letters = await transport.streams.scan(f"{{{prefix}:*:dead:*")
    infos = await transport.streams.info([*names, *letters])
    return sum_groups([info for info in infos if info is not None], set(letters))


def sum_groups(infos: Sequence[StreamInfo], letters: set[str]) -> Groups:
    """Return the state of the groups, summed over streams."""
    lag: dict[str, int] = {}
    pending: dict[str, int] = {}
    for info in infos:
        for group in info.groups:
            lag[group.group] = lag.get(group.group, 0) + (group.lag or 0)
            pending[group.group] = pending.get(group.group, 0) + group.pending
    return Groups(lag, pending, sum(info.length for info in infos if info.stream in letters))


class SocketWatcher:
    """A WebSocket client that remembers the id of every event it was shown."""

    def __init__(self, port: int) -> None:
        self._url = f"ws://127.0.0.1:{port}/?types=*"
        self._decode = msgspec.json.Decoder(_Shown).decode
        self.received: set[str] = set()
        self.messages = 0
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Receive until cancelled.

        Raises:
            HyperbusError: the connection was refused or broke.
        """
        import websockets
        from websockets.asyncio.client import connect

        try:
            async with connect(self._url, max_queue=10_000, compression=None) as connection:
                self.connected.set()
                async for message in connection:
                    self.messages += 1
                    self.received.add(self._decode(message).id)
        except (OSError, websockets.WebSocketException) as error:
            raise HyperbusError(f"the demo's WebSocket client was cut off: {error}") from error


class _Shown(msgspec.Struct):
    id: str


def count_rows(database: Path) -> int:
    """Return how many events the database writer wrote."""
    if not database.exists():
        return 0
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        row: tuple[Any] = connection.execute("SELECT count(*) FROM workflow_updates").fetchone()
        return int(row[0])
    finally:
        connection.close()


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own address
        text: str = answer.read().decode()
        return text
