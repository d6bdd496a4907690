"""Publishing without an event loop, from one thread and from many."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from hyperbus import BusUnavailable, Event, EventData, HyperbusError, PublishUncertain, SyncPublisher
from hyperbus.errors import InvalidSettingError
from hyperbus.settings import Settings
from tests.faults import FaultyTransport
from tests.unit.runtime.running import unique


class Sent(EventData, type="sync_test.sent"):
    n: int


def appended(transport: FaultyTransport, kind: str) -> int:
    calls = transport.streams.called("append")
    return sum(entry.stream == f"events:{kind}" for (entries,) in calls for entry in entries)


def test_it_publishes_one_and_many() -> None:
    """Entry ids come back as they do from a bus, and the bus's options are taken."""
    transport = FaultyTransport()
    with SyncPublisher(transport=transport, source_agent="me", settings=Settings()) as publisher:
        entry_id = publisher.publish(Sent(n=1), workflow_id="w")
        ids = publisher.publish_many([Sent(n=2), Event(data=Sent(n=3))])
    assert "-" in entry_id
    assert len(ids) == 2
    assert appended(transport, "sync_test.sent") == 3


def test_threads_publish_at_once() -> None:
    """Every thread gets its own answer."""
    kind, transport = unique(), FaultyTransport()
    with SyncPublisher(transport=transport, settings=Settings()) as publisher, ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda n: publisher.publish(Event(type=kind, data={"n": n})), range(50)))
    assert len(set(ids)) == 50
    assert appended(transport, kind) == 50


def test_it_says_when_it_is_not_open() -> None:
    """Before and after its time."""
    publisher = SyncPublisher("memory://", settings=Settings())
    with pytest.raises(BusUnavailable, match="not open"):
        publisher.publish(Sent(n=1))
    with publisher:
        publisher.publish(Sent(n=1))
    with pytest.raises(BusUnavailable, match="not open"):
        publisher.publish_many([Sent(n=1)])


def test_it_is_not_opened_twice_and_may_be_left_twice() -> None:
    """A second opening would lose the first one's thread; left, it may be opened again."""
    publisher = SyncPublisher("memory://", settings=Settings())
    publisher.__exit__(None, None, None)
    with publisher:
        with pytest.raises(HyperbusError, match="open already"):
            publisher.__enter__()
        publisher.publish(Sent(n=1))
        publisher.__exit__(None, None, None)
    publisher.__exit__(None, None, None)
    with publisher:
        publisher.publish(Sent(n=1))
    assert not [thread for thread in threading.enumerate() if thread.name == "hyperbus publisher"]


def test_publishing_where_its_own_event_loop_runs_is_refused() -> None:
    """It would wait for itself for ever."""
    with SyncPublisher("memory://", settings=Settings()) as publisher:
        refused: list[Exception] = []

        def publishes_more(event: Event) -> None:
            try:
                publisher.publish(Sent(n=2))
            except Exception as error:
                refused.append(error)

        assert publisher._serving is not None
        publisher._serving.bus.on_publish("*", publishes_more)
        publisher.publish(Sent(n=1))
        assert [type(error) for error in refused] == [BusUnavailable]


def test_a_start_that_fails_raises_where_it_was_started() -> None:
    """The error comes out of the `with`, and its thread is gone."""
    with pytest.raises(InvalidSettingError), SyncPublisher("nonsense://", settings=Settings()):
        pytest.fail("it cannot open")
    assert not [thread for thread in threading.enumerate() if thread.name == "hyperbus publisher"]


def test_errors_of_publishing_reach_the_caller() -> None:
    """As they do from a bus."""
    transport = FaultyTransport()

    async def breaks(append: Any, entries: Any, **_named: Any) -> Any:
        return [PublishUncertain("broke") for _ in entries]

    transport.streams.overrides["append"] = breaks
    with SyncPublisher(transport=transport, settings=Settings()) as publisher, pytest.raises(PublishUncertain):
        publisher.publish(Sent(n=1))


def test_a_publish_that_meets_the_end_hears_of_it() -> None:
    """A thread that publishes while another one closes gets an answer or an error of the bus, and never hangs."""
    publisher = SyncPublisher("memory://", settings=Settings())
    ended: list[Exception] = []
    begun = threading.Event()

    def publish_until_it_ends() -> None:
        try:
            while True:
                publisher.publish(Sent(n=1))
                begun.set()
        except Exception as error:
            ended.append(error)

    threads = [threading.Thread(target=publish_until_it_ends) for _ in range(4)]
    with publisher:
        for thread in threads:
            thread.start()
        begun.wait(2)
    for thread in threads:
        thread.join(5)
    assert [type(error) in (BusUnavailable, PublishUncertain) for error in ended] == [True] * 4


def test_a_publish_that_is_broken_off_is_uncertain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its coroutine was cancelled with its event loop: nobody knows what became of the event."""
    transport = FaultyTransport()
    with SyncPublisher(transport=transport, settings=Settings()) as publisher:

        async def cancelled(*_: Any, **__: Any) -> str:
            raise asyncio.CancelledError

        monkeypatch.setattr(publisher._serving.bus, "publish", cancelled)
        with pytest.raises(PublishUncertain, match="closed"):
            publisher.publish(Sent(n=1))
