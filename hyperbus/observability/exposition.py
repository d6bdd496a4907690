"""What `/metrics` answers: this process's registry, the sum of all processes, and the state of the streams."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

from hyperbus.errors import HyperbusError
from hyperbus.transport import GroupInfo, StreamInfo

#: The content type of what `render` returns.
CONTENT_TYPE = CONTENT_TYPE_LATEST
#: Streams that are shown; the rest are only counted.
MAX_STREAMS = 1_000
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


class StreamStates:
    """The last known state of streams and groups, as gauges. Register it as a collector; feed it with `update`."""

    def __init__(self) -> None:
        self._infos: tuple[StreamInfo, ...] = ()
        self._left_out = 0

    def update(self, infos: Iterable[StreamInfo | None]) -> None:
        """Replace what is known; with [] nothing is, as when the server cannot be reached."""
        known = sorted((info for info in infos if info is not None), key=lambda info: info.stream)
        self._infos = tuple(known[:MAX_STREAMS])
        self._left_out = len(known) - len(self._infos)

    def collect(self) -> list[GaugeMetricFamily]:
        """Return the gauges. The lag of a group is left out where the server does not know it; it is never 0 then."""
        return group_gauges(self._infos, left_out=self._left_out)


def group_gauges(infos: Sequence[StreamInfo], *, left_out: int = 0) -> list[GaugeMetricFamily]:
    """Turn states of streams into gauges. A dead-letter stream is shown as that of its stream and group."""
    pair = ("stream", "group")
    length = GaugeMetricFamily("hyperbus_stream_length", "Entries in a stream.", labels=("stream",))
    lag = GaugeMetricFamily("hyperbus_group_lag_entries", "Entries that a group was not handed yet.", labels=pair)
    pending = GaugeMetricFamily("hyperbus_group_pending_entries", "Entries handed over and not acked.", labels=pair)
    dead = GaugeMetricFamily("hyperbus_dead_letter_entries", "Dead letters waiting to be redriven.", labels=pair)
    hidden = GaugeMetricFamily("hyperbus_streams_left_out", "Streams beyond those shown.", value=left_out)
    for info in infos:
        letters = _DEAD_LETTERS.fullmatch(info.stream)
        if letters is not None:
            dead.add_metric((letters["stream"], letters["group"]), info.length)
            continue
        length.add_metric((info.stream,), info.length)
        for group in info.groups:
            _add_group(info.stream, group, lag, pending)
    return [length, lag, pending, dead, hidden]


def _add_group(stream: str, group: GroupInfo, lag: GaugeMetricFamily, pending: GaugeMetricFamily) -> None:
    pending.add_metric((stream, group.group), group.pending)
    if group.lag is not None:
        lag.add_metric((stream, group.group), group.lag)
