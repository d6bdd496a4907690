"""What a supervisor shows on HTTP: `/metrics` of all processes together, `/healthz`, `/readyz`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from hyperbus.background import BackgroundTasks
from hyperbus.bus import Bus
from hyperbus.clock import Seconds, SystemClock
from hyperbus.http.server import HttpServer, Response
from hyperbus.observability import exposition, health
from hyperbus.supervisor.launcher import ProcessLauncher
from hyperbus.supervisor.metrics_folder import MetricsFolder
from hyperbus.supervisor.process import WorkerProcess
from hyperbus.supervisor.slot import Slot
from hyperbus.supervisor.stream_survey import StreamSurvey


class StatusPages:
    """Answers for one supervisor.

    Args:
        launcher: knows the processes that run now.
        slots: the places of processes; ready when each has one that is.
        bus: asked for the state of the streams.
        metrics: what the processes counted.
        hung_after: a process that was not heard of for so long is not well.
    """

    def __init__(
        self,
        launcher: ProcessLauncher,
        slots: Sequence[Slot],
        bus: Bus,
        metrics: MetricsFolder,
        *,
        hung_after: Seconds,
    ) -> None:
        self._launcher = launcher
        self._slots = slots
        self._folder = metrics
        self._hung_after = hung_after
        self._clock = SystemClock()
        self._registry = CollectorRegistry()
        self._states = exposition.StreamStates()
        self._registry.register(self._states)
        self._survey = StreamSurvey(bus, self._states, self._clock)
        self.port = 0

    @asynccontextmanager
    async def serving(self, host: str, port: int) -> AsyncGenerator[None]:
        """Serve the pages for as long as the context lasts.

        Raises:
            PortInUseError: the port is taken.
        """
        server = HttpServer(host, port, {"/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz})
        await server.start()
        self.port = server.port
        background = BackgroundTasks(clock=self._clock)
        background.start(self._survey.search, "search for streams")
        try:
            yield
        finally:
            await background.stop()
            await server.stop()

    async def _metrics(self) -> Response:
        await self._survey.update()
        text = await self._folder.render(self._registry)
        return Response(200, exposition.CONTENT_TYPE, text)

    async def _healthz(self) -> Response:
        states = _states(self._launcher.processes)
        status, body = health.healthz(states, now=self._clock.monotonic(), stale_after=self._hung_after)
        return Response(status, health.CONTENT_TYPE, body)

    async def _readyz(self) -> Response:
        # Not one that is being replaced, nor one that is to take its place.
        states = _states([slot.current for slot in self._slots if slot.current is not None])
        now, expected = self._clock.monotonic(), len(self._slots)
        status, body = health.readyz(states, now=now, expected=expected, stale_after=self._hung_after)
        return Response(status, health.CONTENT_TYPE, body)


def _states(processes: Sequence[WorkerProcess]) -> list[health.ProcessState]:
    return [
        health.ProcessState(
            process.pid, process.ready.is_set(), process.connected, process.last_seen, process.alive.failing
        )
        for process in processes
    ]
