"""One worker process, seen from its supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence

import msgspec

from hyperbus.clock import Clock, Seconds
from hyperbus.supervisor.limits import Vitals
from hyperbus.supervisor.memory import rss_of
from hyperbus.supervisor.messages import REPORT_FD, Alive, Failed, Inspected, Orders, Ready, Report

#: A line of a report, at most, in bytes.
_LINE_LIMIT = 64 * 1024
#: How long the last reports of a dead process are waited for: what it forked may hold the pipe open.
_LAST_WORDS: Seconds = 1.0


class WorkerProcess:
    """Hears the reports of a process, and waits for its end.

    Args:
        process: one that was started.
        reports: the descriptor that its reports come from; it is closed with it.
        clock: what its times go by.
    """

    def __init__(self, process: asyncio.subprocess.Process, reports: int, clock: Clock) -> None:
        self._process = process
        self._clock = clock
        self.started_at = clock.monotonic()
        self.last_seen = self.started_at
        self.ready = asyncio.Event()
        self.connected = False
        #: Every worker that it ever named: the heartbeat of one that stopped may have outlived it.
        self.workers: set[str] = set()
        self.inspected: Inspected | None = None
        self.failed: Failed | None = None
        self.alive = Alive(connected=False, workers=())
        #: Why its supervisor killed it, if it did.
        self.killed_because: str | None = None
        self._hearing = asyncio.create_task(self._hear(reports), name=f"hyperbus reports of {process.pid}")
        self.ended = asyncio.create_task(self._wait(), name=f"hyperbus end of {process.pid}")

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
                "hyperbus.supervisor.worker_process.main",
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
        self = cls(process, reading, clock)
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

    @property
    def vitals(self) -> Vitals:
        """What is known of it now. Its memory is looked at from here: it need not be able to tell."""
        return Vitals(
            lived=self.lived,
            silent=self._clock.monotonic() - self.last_seen,
            ready=self.ready.is_set(),
            rss=rss_of(self.pid) or self.alive.rss,
            deliveries=self.alive.deliveries,
            oldest_running=self.alive.oldest_running,
        )

    async def wait(self) -> int:
        """Wait for its end, and its last report; return its exit code (minus the signal's number, if one ended it)."""
        return await asyncio.shield(self.ended)

    def kill(self, reason: str) -> None:
        """Kill it, and remember why."""
        self.killed_because = reason
        self.send(signal.SIGKILL)

    def how_it_ended(self) -> str:
        """Return why it ended, in words."""
        if not self.ended.done():
            return "it still runs"
        if self.killed_because is not None:
            return f"killed: {self.killed_because}"
        if self.failed is not None:
            return self.failed.message
        code = self.ended.result()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    async def _wait(self) -> int:
        code = await self._process.wait()
        await asyncio.wait((self._hearing,), timeout=_LAST_WORDS)
        self._hearing.cancel()
        await asyncio.wait((self._hearing,))
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
            while not reader.at_eof():
                try:
                    line = await reader.readline()
                    if line:
                        self._take(decode(line))
                except (msgspec.MsgspecError, ValueError):
                    continue  # a line cut off by the end of the process, or one without an end
        finally:
            transport.close()

    def _take(self, report: Report) -> None:
        self.last_seen = self._clock.monotonic()
        match report:
            case Ready():
                self.connected = True
                self.ready.set()
            case Alive():
                self.alive, self.connected = report, report.connected
                self.workers.update(report.workers)
            case Inspected():
                self.inspected = report
            case Failed():
                self.failed = report
