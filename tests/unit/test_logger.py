"""Lines go where the program's own go, and a log that is broken breaks nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from hyperbus import Backoff, Bus, Event, consumer
from hyperbus.logger import get_logger
from tests.recorder import eventually
from tests.unit.runtime.running import unique


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


def test_without_structlog_a_line_is_a_record_of_logging(caplog: pytest.LogCaptureFixture) -> None:
    """Its values are in the text, and beside it; who asked for it is its place."""
    get_logger("hyperbus.test").warning("something happened", type="order.paid", after=0.0951, token="hunter2")
    (record,) = caplog.records
    assert record.getMessage() == "something happened (type=order.paid after=0.1 s token=***)"
    assert (record.name, record.levelname, record.funcName) == (
        "hyperbus.test", "WARNING", "test_without_structlog_a_line_is_a_record_of_logging",
    )  # fmt: skip
    assert vars(record)["values"]["type"] == "order.paid"


def test_with_structlog_it_is_an_event_of_structlog(caplog: pytest.LogCaptureFixture) -> None:
    """Values as they are."""
    lines: list[Any] = []

    def keep(_logger: object, method: str, event: Any) -> Any:
        lines.append((method, dict(event)))
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    get_logger("hyperbus.test").error("something happened", after=0.0951)
    assert lines == [("error", {"event": "something happened", "after": 0.0951})]
    assert caplog.records == []


def test_where_structlog_wants_to_be_awaited_logging_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody awaits a line here; it would be lost."""

    class Awaited:
        def __init__(self, *_: object, **__: object) -> None: ...

        async def warning(self, _event: str, **_values: object) -> None: ...

    structlog.configure(wrapper_class=Awaited)  # type: ignore[arg-type]
    get_logger("hyperbus.test").warning("something happened")
    assert [record.getMessage() for record in caplog.records] == ["something happened"]


class Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("the log is broken")


@pytest.mark.parametrize("kind", ["logging", "structlog"])
async def test_a_broken_log_does_not_end_a_worker(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What could not be told is told on stderr."""

    def broken(*_: object) -> Any:
        raise RuntimeError("the log is broken")

    handler, seen, name = Broken(), [], unique()
    if kind == "structlog":
        structlog.configure(processors=[broken])
    else:
        logging.getLogger("hyperbus").addHandler(handler)

    @consumer(group=name, types=[name], retry=Backoff(initial=0, tries=2))
    async def failing(event: Event) -> None:
        seen.append(event.data["n"])
        if event.data["n"] == 1:
            raise ValueError("no")

    try:
        async with asyncio.timeout(10), Bus("memory://") as bus, bus.running(failing):
            await bus.publish_many([Event(type=name, data={"n": n}) for n in (1, 2)])
            await eventually(lambda: sorted(seen) == [1, 1, 2])
    finally:
        logging.getLogger("hyperbus").removeHandler(handler)
    assert (
        "the log failed (RuntimeError: the log is broken) when it was told: handler failed" in capsys.readouterr().err
    )
