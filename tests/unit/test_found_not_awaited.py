"""Found by use: `publish` without `await`. Nothing is sent, and somebody has to say so."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from collections.abc import Coroutine
from typing import Any

import pytest
from structlog.testing import capture_logs

from hyperbus import Delivery, Event, EventData, consumer
from hyperbus.signals import PublishErred
from tests.recorder import eventually
from tests.unit.runtime.running import Running, unique

pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


class Forgotten(EventData, type="found.forgotten"):
    n: int = 1


def told(logs: list[Any]) -> list[dict[str, Any]]:
    return [line for line in logs if line["log_level"] == "error" and "not awaited" in line["event"]]


@pytest.mark.parametrize("how", ["delivery", "held", "bus", "many", "thread"])
async def test_a_handler_that_forgets_to_await_is_named_and_counted(how: str) -> None:
    """However it publishes, and whether it drops the coroutine at once or when it returns."""
    kind, group, seen = unique(), unique(), []

    if how == "thread":

        @consumer(group=group, types=[kind])
        def forgetful(event: Event, delivery: Delivery) -> None:
            delivery.publish(Forgotten())
            seen.append(event)
    else:

        @consumer(group=group, types=[kind])
        async def forgetful(event: Event, delivery: Delivery) -> None:
            if how == "delivery":
                delivery.publish(Forgotten())
            elif how == "held":
                held = delivery.publish(Forgotten())
                assert held
            elif how == "bus":
                here.bus.publish(Forgotten())
            else:
                here.bus.publish_many([Forgotten()])
            seen.append(event)

    with capture_logs() as logs:
        async with Running() as here, here.bus.running(forgetful):
            await here.publish(kind, 1)
            await eventually(lambda: seen)
            await eventually(lambda: told(logs))
            await here.recorder.wait_for_one(PublishErred)
            (line,) = told(logs)
            assert here.recorder.of(PublishErred) == [PublishErred(1, "NotAwaited")]
            assert await here.transport.streams.info(["events:found.forgotten"]) == [None]
    assert "forgetful" in f"{line.get('task')} {line.get('place')}"
    assert line["type"] == ("1 events" if how == "many" else "found.forgotten")


async def test_code_that_is_no_handler_is_named_by_its_line() -> None:
    """As far as it is still there when the coroutine is dropped."""
    with capture_logs() as logs:
        async with Running() as here:
            here.bus.publish(Forgotten())
            (line,) = told(logs)
    assert "test_found_not_awaited.py:" in line["place"]


async def test_every_way_to_wait_for_it_works_and_says_nothing() -> None:
    """It is a coroutine: awaited, made a task, gathered, waited for with a time, in a group, from a thread."""
    with capture_logs() as logs:
        async with Running() as here:
            publish = here.bus.publish
            publish_later = publish(Forgotten())
            assert asyncio.iscoroutine(publish_later)
            assert inspect.isawaitable(publish_later)
            assert isinstance(publish_later, Coroutine)
            ids = [await publish_later, await asyncio.create_task(publish(Forgotten()))]
            ids += await asyncio.gather(publish(Forgotten()), publish(Forgotten()))
            ids.append(await asyncio.wait_for(publish(Forgotten()), 10))
            ids.append(await asyncio.shield(publish(Forgotten())))
            async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
                made = tasks.create_task(publish(Forgotten()))
            ids.append(made.result())
            loop = asyncio.get_running_loop()
            ids.append(
                await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(publish(Forgotten()), loop).result(10))
            )
            ids += await asyncio.create_task(here.bus.publish_many([Forgotten()]))
            (info,) = await here.transport.streams.info(["events:found.forgotten"])
            assert info is not None
            assert info.length == len(set(ids)) == 9
        gc.collect()
    assert told(logs) == []


async def test_what_was_asked_for_and_cancelled_before_it_began_is_not_forgotten() -> None:
    """A task that is cancelled at once, or a time of nothing: they were awaited."""
    with capture_logs() as logs, warnings.catch_warnings():
        warnings.simplefilter("error")
        async with Running() as here:
            task = asyncio.create_task(here.bus.publish(Forgotten()))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(here.bus.publish(Forgotten()), 0)
            del task
            gc.collect()
            assert here.recorder.of(PublishErred) == []
    assert told(logs) == []
