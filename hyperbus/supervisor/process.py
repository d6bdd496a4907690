"""One worker process, seen from its supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence

import msgspec

from hyperbus.clock import Clock, Seconds
from hyperbus.supervisor.messages import REPORT_FD, Alive, Failed, Inspected, Orders, Ready, Report

#: A line of a report, at most, in bytes.
_LINE_LIMIT = 64 * 1024


class WorkerProcess:
    """Starts a process, hears its reports, and waits for its end."""

    def __init__(self, process: asyncio.subprocess.Process, clock: Clock) -> None:
        self._process = process
        self._clock = clock
        self.started_at = clock.monotonic()
        self.last_seen = self.started_at
        self.ready = asyncio.Event()
        self.connected = False
        self.workers: tuple[str, ...] = ()
        self.inspected: Inspected | None = None
        self.failed: Failed | None = None
        self._hearing: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, orders: Orders, clock: Clock, *, environment: Mapping[str, str], descriptors: Sequence[int] = ()
    ) -> WorkerProcess:
        """Start a process with these orders; `descriptors` stay open in it.

        It is its own session, so that a Ctrl-C on the terminal reaches only the supervisor, which then drains.
        """
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "hyperbus.supervisor.child",
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(writing, *descriptors),
                env={**environment, REPORT_FD: str(writing)},
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self = cls(process, clock)
        self._hearing = asyncio.create_task(self._hear(reading), name=f"hyperbus reports of {process.pid}")
        if process.stdin is not None:
            process.stdin.write(msgspec.json.encode(orders) + b"\n")  # and stays open: its end says that we are gone
        return self

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def lived(self) -> Seconds:
        """How long it has lived so far."""
        return self._clock.monotonic() - self.started_at

    async def wait(self) -> int:
        """Wait for its end, and its last report; return its exit code (minus the signal's number, if one ended it)."""
        code = await self._process.wait()
        if self._hearing is not None:
            await self._hearing
        return code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still lives."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def _hear(self, descriptor: int) -> None:
        reader = asyncio.StreamReader(limit=_LINE_LIMIT)
        pipe = os.fdopen(descriptor, "rb")
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        decode = msgspec.json.Decoder(Report).decode
        try:
            while line := await reader.readline():
                try:
                    self._take(decode(line))
                except msgspec.MsgspecError:
                    continue  # a line cut off by the end of the process
        finally:
            transport.close()

    def _take(self, report: Report) -> None:
        self.last_seen = self._clock.monotonic()
        match report:
            case Ready():
                self.ready.set()
            case Alive(connected=connected, workers=workers):
                self.connected, self.workers = connected, workers
            case Inspected():
                self.inspected = report
            case Failed():
                self.failed = report
