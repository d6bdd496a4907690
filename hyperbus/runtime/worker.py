"""A worker: one consumer at work in one process. It starts, drains and stops; who joins its parts stands beside it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Literal

from hyperbus.clock import Seconds
from hyperbus.declaration.consumer import Consumer, Declaration, declaration_of
from hyperbus.errors import ServerError
from hyperbus.runtime.coordination.refusals import Refusals, is_final
from hyperbus.runtime.cursor_worker import CursorWorker
from hyperbus.runtime.group.consumer_name import consumer_name
from hyperbus.runtime.group_worker import GroupWorker
from hyperbus.runtime.handling.handler import Handler, handler_of, handler_threads
from hyperbus.runtime.handling.running_handlers import RunningHandlers
from hyperbus.runtime.services import Services
from hyperbus.signals import WorkerChanged
from hyperbus.transport import Reader

#: How long, after the drain time, the server is told how deliveries ended.
FINISH: Seconds = 1.0
#: How long the start waits for a server that refuses, as while rights change; then the refusal is raised.
START: Seconds = 10.0


class Worker:
    """Runs one consumer.

    Starting: the consumer's own `start`, the heartbeat, the groups, and only then the first read.
    Stopping, in this order:

    1. Intake ends: no read, no claim, no retry. What nobody has begun is handed over.
    2. Handlers that are running finish, or are cancelled when the drain time is up.
    3. What is done is acked; what is given up becomes dead letters.
    4. The heartbeat goes, so that another worker takes at once what this one still holds.
    5. The consumer's own `stop`.
    """

    def __init__(self, declared: object, services: Services) -> None:
        self.declaration: Declaration = declaration_of(declared)
        self.name = consumer_name()
        #: Set once it reads.
        self.ready = asyncio.Event()
        self._declared = declared
        self._services = services
        self._running = RunningHandlers(self.declaration.concurrency, services.clock)
        self._stopping = asyncio.Event()
        self._drain_timeout = services.drain_timeout

    def stop(self, *, drain_timeout: Seconds | None = None) -> None:
        """Let `run` drain and end; handlers that run have `drain_timeout` seconds left, by default the setting's."""
        if drain_timeout is not None:
            self._drain_timeout = drain_timeout
        self._stopping.set()

    def oldest_running(self) -> Seconds | None:
        """Return for how long the handler that began first has been running; None when none runs."""
        return self._running.oldest()

    async def run(self) -> None:
        """Start, work until stopped, drain.

        Raises:
            BusUnavailable, ServerError: the server could not be reached at the start, or refused for long.
            Exception: whatever the consumer's own `start` or `stop` raised.
        """
        target = self._declared() if inspect.isclass(self._declared) else self._declared
        if isinstance(target, Consumer):
            await target.start()
        connection = self._services.transport.open_reader()
        threads = handler_threads(self.declaration)
        try:
            await self._work(handler_of(target, self.declaration, threads), connection)
        finally:
            await connection.close()
            if threads is not None:
                threads.shutdown(wait=False, cancel_futures=True)
            if isinstance(target, Consumer):
                await target.stop()
            self._announce("stopped")

    async def _work(self, handler: Handler, connection: Reader) -> None:
        """Join, work until stopped, then end the parts in order, and leave. A part that fails ends the worker."""
        assembly = CursorWorker if self.declaration.audience == "every_process" else GroupWorker
        joined = assembly(handler, self._running, self.name, connection, self._services)
        await self._begin(joined.enter)
        try:
            await self._begin(joined.join)
            async with asyncio.TaskGroup() as tasks:
                joined.parts.start(tasks)
                self.ready.set()
                self._announce("started")
                await self._stopping.wait()
                self._announce("draining")
                await joined.parts.end_intake()
                await joined.hand_over()
                until = asyncio.get_running_loop().time() + self._drain_timeout
                if not await joined.parts.drain(until) and self._drain_timeout:  # a loop that was left drains nothing
                    self._announce("cut off")
                await joined.parts.finish(until + FINISH)
        finally:
            await joined.leave()

    async def _begin(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do a step of the start, and do it again while the server refuses it, for `START` seconds."""
        clock, refusals = self._services.clock, Refusals(self._services.announcer, f"start of {self.declaration.group}")
        until = clock.monotonic() + START
        while True:
            try:
                await step()
            except ServerError as error:
                if is_final(error) or self._stopping.is_set() or clock.monotonic() >= until:
                    raise
                await clock.sleep(refusals.failed(error))
            else:
                refusals.succeeded()
                return

    def _announce(self, state: Literal["started", "draining", "cut off", "stopped"]) -> None:
        declaration = self.declaration
        self._services.announcer.announce(WorkerChanged(declaration.group, self.name, state, declaration.name))
