"""What processes tell each other at once."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from structlog.testing import capture_logs

from hyperbus import BusUnavailable
from hyperbus.clock import SystemClock
from hyperbus.runtime.coordination.notifier import Notifier
from hyperbus.transport import NewEntry, record_names
from tests.faults import FaultyTransport
from tests.recorder import eventually


class Listening:
    """Two processes' notifiers over one memory."""

    def __init__(self) -> None:
        self.transport = FaultyTransport()
        self.one = Notifier(self.transport, SystemClock(), prefix="events")
        self.other = Notifier(self.transport, SystemClock(), prefix="events")
        self.heard: list[bytes] = []
        self.other.subscribe(b"kind", self.heard.append)

    async def __aenter__(self) -> Self:
        await self.transport.open()
        await self.other.start()
        self._task = asyncio.create_task(self.other.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.transport.close()


async def test_a_notice_reaches_other_processes_at_once() -> None:
    """In order, and only who asked for its kind."""
    async with Listening() as here:
        await here.one.notify(b"other kind", b"0")
        for body in (b"1", b"2"):
            await here.one.notify(b"kind", body)
        await eventually(lambda: here.heard == [b"1", b"2"])


async def test_what_was_told_before_is_not_heard() -> None:
    """An old notice says nothing about now."""
    here = Listening()
    await here.transport.open()
    await here.one.notify(b"kind", b"old")
    async with here:
        await here.one.notify(b"kind", b"new")
        await eventually(lambda: here.heard == [b"new"])


async def test_an_outage_is_made_up_for() -> None:
    """What was told meanwhile is heard afterwards; it is asked for again after a pause."""
    here, failed = Listening(), []

    async def breaks(read: Any, *arguments: Any, **options: Any) -> Any:
        if len(failed) < 2:
            failed.append(True)
            raise BusUnavailable("away")
        return await read(*arguments, **options)

    here.transport.reader_overrides["read"] = breaks
    async with here:
        await here.one.notify(b"kind", b"1")
        await eventually(lambda: here.heard == [b"1"])
    assert len(failed) == 2


async def test_anybody_can_write_nonsense() -> None:
    """It is passed over."""
    async with Listening() as here:
        await here.transport.streams.append([NewEntry(record_names.notices_key("events"), b"nobody's", b"\xff")])
        await here.one.notify(b"kind", b"1")
        await eventually(lambda: here.heard == [b"1"])


async def test_who_unsubscribed_is_told_no_more() -> None:
    """A worker that stopped hears nothing."""
    async with Listening() as here:
        others: list[bytes] = []
        here.other.subscribe(b"kind", others.append)
        here.other.unsubscribe(b"kind", others.append)
        await here.one.notify(b"kind", b"1")
        await eventually(lambda: here.heard == [b"1"])
    assert others == []


async def test_a_subscriber_that_fails_keeps_no_other_from_hearing() -> None:
    """Whichever it is, and each time; the log has it once."""
    async with Listening() as here:
        after: list[bytes] = []

        def fails(_: bytes) -> None:
            raise ZeroDivisionError

        here.other.subscribe(b"kind", fails)
        here.other.subscribe(b"kind", after.append)
        with capture_logs() as lines:
            for body in (b"1", b"2", b"3"):
                await here.one.notify(b"kind", body)
            await eventually(lambda: here.heard == [b"1", b"2", b"3"])
            await eventually(lambda: after == [b"1", b"2", b"3"])
        assert [line["kind"] for line in lines if "could not be heard" in line["event"]] == ["kind"]
