"""What `/metrics` answers: this process's registry, the sum of all processes, and the state of the streams."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

from hyperbus.errors import HyperbusError
from hyperbus.observability.metrics import MAX_LABEL
from hyperbus.transport import StreamInfo

#: The content type of what `render` returns.
CONTENT_TYPE = CONTENT_TYPE_LATEST
#: Streams that are shown; the rest are only counted.
MAX_STREAMS = 1_000
#: Groups on streams that are shown.
MAX_GROUPS = 10_000
_DEAD_LETTERS = re.compile(r"\{(?P<stream>.+)\}:dead:(?P<group>[A-Za-z0-9_.-]+)")
_ATTEMPTS = 5


def render(registry: CollectorRegistry | None = None, *, multiprocess_dir: Path | str | None = None) -> bytes:
    """Return metrics in the Prometheus text format.

    Args:
        registry: what this process itself knows.
        multiprocess_dir: `PROMETHEUS_MULTIPROC_DIR` of the processes whose counters are to be added up. A metric
            must not come from both.

    Raises:
        HyperbusError: the files in `multiprocess_dir` cannot be read.
    """
    own = b"" if registry is None else generate_latest(registry)
    return own if multiprocess_dir is None else own + _sum_of_processes(Path(multiprocess_dir))


def _sum_of_processes(folder: Path) -> bytes:
    problem: Exception | None = None
    for _ in range(_ATTEMPTS):
        together = CollectorRegistry()
        try:
            MultiProcessCollector(together, str(folder))  # type: ignore[no-untyped-call]
            return generate_latest(together)
        except (FileNotFoundError, struct.error, RuntimeError) as error:
            problem = error  # a process is just creating its file, or it was just removed
        except (OSError, ValueError) as error:
            raise HyperbusError(f"metrics of the worker processes cannot be read from {folder}: {error}") from error
    raise HyperbusError(f"a metrics file in {folder} is damaged ({problem}): restart hyperbus to begin a new one")


class GroupState(NamedTuple):
    """What waits in a group of a stream besides what is pending and unread."""

    parked: int
    retries: int
    dead_letters: int


class StreamStates:
    """The last known state of streams and groups, as gauges. Register it as a collector; feed it with `update`."""

    def __init__(self) -> None:
        self._infos: tuple[StreamInfo, ...] = ()
        self._waiting: Mapping[tuple[str, str], GroupState] = {}
        self._left_out = 0

    def update(
        self,
        infos: Iterable[StreamInfo | None],
        waiting: Mapping[tuple[str, str], GroupState] | None = None,
        *,
        left_out: int = 0,
    ) -> None:
        """Replace what is known; with [] nothing is, as when the server cannot be reached.

        `left_out`: streams that were not even asked about. `waiting` is by stream and group.
        """
        known = sorted((info for info in infos if info is not None), key=lambda info: info.stream)
        shown = [info for info in known if _is_label(info.stream)][:MAX_STREAMS]
        self._infos = tuple(shown)
        self._waiting = waiting or {}
        self._left_out = left_out + len(known) - len(shown)

    def collect(self) -> list[GaugeMetricFamily]:
        """Return the gauges. The lag of a group is left out where the server does not know it; it is never 0 then."""
        return group_gauges(self._infos, self._waiting, left_out=self._left_out)


def group_gauges(
    infos: Sequence[StreamInfo], waiting: Mapping[tuple[str, str], GroupState], *, left_out: int = 0
) -> list[GaugeMetricFamily]:
    """Turn states of streams into gauges. A dead-letter stream is shown as that of its stream and group."""

    def gauge(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"hyperbus_{name}", text, labels=("stream", "group"))

    length = GaugeMetricFamily("hyperbus_stream_length", "Entries in a stream.", labels=("stream",))
    lag = gauge("group_lag_entries", "Entries that a group was not handed yet.")
    pending = gauge("group_pending_entries", "Entries handed over and not acked.")
    parked = gauge("group_parked_entries", "Entries that wait for a retry outside the pending list.")
    retries = gauge("group_retries_waiting", "Pending entries that wait for their next try.")
    dead = gauge("dead_letter_entries", "Dead letters waiting to be redriven.")
    letters = {pair: state.dead_letters for pair, state in waiting.items() if state.dead_letters}
    pairs = 0
    for info in infos:
        found = _DEAD_LETTERS.fullmatch(info.stream)
        if found is not None:
            letters[found["stream"], found["group"]] = info.length
            continue
        length.add_metric((info.stream,), info.length)
        for group in info.groups:
            pairs += 1
            if pairs > MAX_GROUPS or not _is_label(group.group):
                left_out += 1
                continue
            labels = (info.stream, group.group)
            pending.add_metric(labels, group.pending)
            if group.lag is not None:
                lag.add_metric(labels, group.lag)
            if labels in waiting:
                parked.add_metric(labels, waiting[labels].parked)
                retries.add_metric(labels, waiting[labels].retries)
    for labels, count in letters.items():
        dead.add_metric(labels, count)
    hidden = GaugeMetricFamily("hyperbus_streams_left_out", "Streams, and groups, beyond those shown.", value=left_out)
    return [length, lag, pending, parked, retries, dead, hidden]


def _is_label(text: str) -> bool:
    return len(text) <= MAX_LABEL and text.isascii() and text.isprintable()
