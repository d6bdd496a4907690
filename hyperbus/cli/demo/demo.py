"""The demo from end to end: a server, a supervisor, agents that publish, a socket that watches, and the count."""

from __future__ import annotations

import asyncio
import secrets
import signal
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from hyperbus.bus import Bus
from hyperbus.cli.demo.agents import Agents
from hyperbus.cli.demo.showing import Glance, Screen, Summary
from hyperbus.cli.demo.watching import (
    Groups,
    Seen,
    SocketWatcher,
    count_rows,
    fetch_metrics,
    look_at_groups,
    quantile,
    together,
)
from hyperbus.cli.init import consumers_folder
from hyperbus.clock import Clock, Seconds, SystemClock
from hyperbus.errors import DemoDisagreesError, HyperbusError, MissingExtraError
from hyperbus.observability.logs import configure_logs
from hyperbus.process_signals import ProcessSignals
from hyperbus.settings import Settings
from hyperbus.supervisor.supervisor import Supervisor

#: What the demo's processes run.
MODULES = ("consumers", "hyperbus.cli.demo.reviewer")
#: How long processes may take to get ready, and events to arrive after the last publish.
START_TIMEOUT: Seconds = 30.0
SETTLE_TIMEOUT: Seconds = 20.0


class Demo:
    """One run of the demo. Everything it makes lies in a folder that goes with it."""

    def __init__(self, *, url: str | None, seconds: Seconds | None, rate: float, processes: int, as_json: bool) -> None:
        _check_extras()
        self._url = url
        self._seconds = seconds
        self._rate = rate
        self._processes = processes
        self._as_json = as_json
        self._clock: Clock = SystemClock()
        self._screen = Screen(quiet=as_json)

    async def run(self) -> None:
        """Run the demo, and print its summary.

        Raises:
            DemoDisagreesError: the two ends counted different numbers.
            HyperbusError: it could not run.
        """
        configure_logs("error")
        with tempfile.TemporaryDirectory(prefix="hyperbus-demo-") as folder:
            summary = await self._run_in(Path(folder))
        if self._as_json:
            print(msgspec.json.encode(summary.as_dict()).decode())
        else:
            print("\n".join(summary.lines()))
        if not summary.agrees:
            raise DemoDisagreesError("published, rows, counted and received differ, or something is left; see above")

    async def _run_in(self, folder: Path) -> Summary:
        database = folder / "demo.db"
        settings = Settings(
            url=self._url or f"embedded://{folder / 'server'}",
            # on a server that others use, a run counts its own events only
            prefix=f"demo-{secrets.token_hex(4)}" if self._url else "events",
            http_port=0,
            websocket_port=0,
            database_url=f"sqlite:///{database}",
            log_level="error",
        )
        supervisor = Supervisor(MODULES, settings, processes=self._processes, folder=consumers_folder())
        async with _supervising(supervisor), Bus(settings=settings) as bus:
            http_port, socket_port = supervisor.http_port or 0, supervisor.websocket_port or 0
            self._screen.say(
                f"server {bus.transport.description}\nmetrics http://127.0.0.1:{http_port}/metrics\n"
                f"socket ws://127.0.0.1:{socket_port}/?types=*\n"
            )
            watcher = SocketWatcher(socket_port)
            agents = Agents(bus, self._clock, self._rate)
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(watcher.run(), name="hyperbus demo socket")
                await watcher.connected.wait()
                showing = tasks.create_task(self._show(bus, agents, watcher, http_port), name="hyperbus demo screen")
                with ProcessSignals({signal.SIGINT: agents.stop, signal.SIGTERM: agents.stop}):
                    await agents.run(self._seconds)
                took = self._clock.monotonic() - agents.started_at
                showing.cancel()
                await self._settle(bus, agents, watcher, database, http_port)
                watching.cancel()
                self._screen.close()
            if self._url:
                self._screen.say(
                    f"\nThis run's keys stay on the server; to remove them: "
                    f"redis-cli --scan --pattern '*{settings.prefix}:*' | xargs redis-cli del"
                )
            return await self._sum_up(bus, agents, watcher, database, http_port, took)

    async def _show(self, bus: Bus, agents: Agents, watcher: SocketWatcher, http_port: int) -> None:
        before: tuple[float, int, Seen] = (agents.started_at, 0, Seen())
        while True:
            await self._clock.sleep(self._screen.interval)
            now = self._clock.monotonic()
            seen = await fetch_metrics(http_port)
            groups = await look_at_groups(bus.transport, bus.prefix)
            passed = max(now - before[0], 0.001)
            published = agents.published
            self._screen.show(
                Glance(
                    elapsed=now - agents.started_at,
                    published=published,
                    received=len(watcher.received),
                    publish_rate=(published - before[1]) / passed,
                    handled_rates={
                        group: (count - before[2].handled.get(group, 0)) / passed
                        for group, count in seen.handled.items()
                    },
                    seen=seen,
                    groups=groups,
                )
            )
            before = (now, published, seen)

    async def _settle(self, bus: Bus, agents: Agents, watcher: SocketWatcher, database: Path, http_port: int) -> None:
        """Wait until what was published has arrived everywhere, as long as it takes within reason."""
        until = self._clock.monotonic() + SETTLE_TIMEOUT
        while self._clock.monotonic() < until:
            groups = await look_at_groups(bus.transport, bus.prefix)
            published = agents.published
            counted = (await fetch_metrics(http_port)).counted
            arrived = len(watcher.received) >= published <= counted and count_rows(database) >= published
            if groups.settled and arrived:
                return
            await self._clock.sleep(0.1)

    async def _sum_up(
        self, bus: Bus, agents: Agents, watcher: SocketWatcher, database: Path, http_port: int, took: Seconds
    ) -> Summary:
        groups: Groups = await look_at_groups(bus.transport, bus.prefix)
        seen = await fetch_metrics(http_port)
        latency = together(seen.latency.values())
        published, rows = agents.published, count_rows(database)
        return Summary(
            seconds=took,
            published=published,
            rows=rows,
            counted=seen.counted,
            received=len(watcher.received & agents.ids),
            lost=max(published - rows, len(agents.ids - watcher.received)),
            pending=sum(groups.pending.values()),
            dead_letters=groups.dead_letters,
            retries=seen.retries,
            uncertain=agents.uncertain,
            p50=quantile(latency, 0.5),
            p99=quantile(latency, 0.99),
        )


async def only_produce(settings: Settings, *, seconds: Seconds | None, rate: float) -> None:
    """Play the agents, for consumers that run elsewhere, until stopped."""
    configure_logs(settings.log_level, settings.log_format)
    async with Bus(settings=settings) as bus:
        agents = Agents(bus, SystemClock(), rate, remember=False)
        with ProcessSignals({signal.SIGINT: agents.stop, signal.SIGTERM: agents.stop}):
            await agents.run(seconds)
        print(f"published {agents.published:,} events")


@asynccontextmanager
async def _supervising(supervisor: Supervisor) -> AsyncGenerator[None]:
    """Run a supervisor beside the body, which begins once every process is ready."""
    running = asyncio.create_task(supervisor.run(), name="hyperbus demo supervisor")
    readying = asyncio.create_task(supervisor.ready.wait())
    try:
        await asyncio.wait((running, readying), timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        if not readying.done():
            raise HyperbusError(f"the worker processes were not ready within {START_TIMEOUT:.0f} s")
        yield
    finally:
        readying.cancel()
        supervisor.stop()
        await running


def _check_extras() -> None:
    try:
        import rich  # noqa: F401 - whether it is there
        import websockets  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the demo needs {error.name}: pip install 'hyperbus[cli,websocket]'") from None
